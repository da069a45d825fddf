"""Find the glomeruli of one slide."""

import json
from pathlib import Path

from glomerulearn.detection import detect_glomeruli
from glomerulearn.models import pick_device
from glomerulearn.running import bar, logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        cfg = json.loads(snakemake.params.cfg)
        detect_glomeruli(
            Path(snakemake.input.patches),
            Path(snakemake.input.weights).parent,
            snakemake.params.annotation or None,
            cfg["outlines"]["classes"],
            cfg["detection"],
            Path(snakemake.output.mask),
            Path(snakemake.output.geojson),
            Path(snakemake.output.table),
            pick_device(snakemake.resources.gpu),
            snakemake.threads,
            bar(f"infer {snakemake.wildcards.slide}"),
        )
