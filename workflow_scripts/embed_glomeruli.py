"""Turn the crops of one slide into vectors."""

import json
from pathlib import Path

from glomerulearn.embedding import embed_slide
from glomerulearn.models import pick_device
from glomerulearn.running import bar, logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        embed_slide(
            snakemake.wildcards.extractor,
            Path(snakemake.input.crops),
            json.loads(snakemake.params.cfg),
            Path(snakemake.input.model[0]).parent if snakemake.input.model else None,
            Path(snakemake.output.vectors),
            pick_device(snakemake.resources.gpu),
            snakemake.threads,
            bar(f"embed {snakemake.wildcards.slide}"),
        )
