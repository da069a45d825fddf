"""Turn the crops of one slide into vectors."""

import json
from pathlib import Path

from glomerulearn.embedding import embed_slide
from glomerulearn.models import pick_device
from glomerulearn.running import bar, logged

if __name__ == "__main__":
    weights = snakemake.input.get("weights")  # of extractors that were trained on this cohort
    with logged(snakemake.log[0]):
        embed_slide(
            snakemake.wildcards.extractor,
            Path(snakemake.input.crops),
            json.loads(snakemake.params.cfg),
            Path(weights).parent if weights else None,
            Path(snakemake.output.vectors),
            pick_device(snakemake.resources.gpu),
            snakemake.threads,
            bar(f"embed {snakemake.wildcards.slide}"),
        )
