"""Find the glomeruli of one slide."""

import json
from pathlib import Path

from glomerulearn.detection import detect_glomeruli
from glomerulearn.models import pick_device
from glomerulearn.running import bar, logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        detect_glomeruli(
            Path(snakemake.input.patches),
            Path(snakemake.params.path),
            Path(snakemake.input.weights).parent,
            json.loads(snakemake.params.cfg),
            Path(snakemake.output.mask),
            Path(snakemake.output.geojson),
            Path(snakemake.output.table),
            pick_device(snakemake.resources.gpu),
            snakemake.threads,
            bar(f"infer {snakemake.wildcards.slide}"),
        )
