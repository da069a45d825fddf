"""Measure the crops of one slide."""

import json
from pathlib import Path

from glomerulearn.measuring import measure_slide
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        measure_slide(
            Path(snakemake.input.crops), json.loads(snakemake.params.cfg)["pixels"], Path(snakemake.output.vectors)
        )
