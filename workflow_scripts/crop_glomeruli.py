"""Cut the detected glomeruli out of one slide."""

import json
from pathlib import Path

from glomerulearn.cropping import crop_glomeruli
from glomerulearn.glomerulus_table import read_table
from glomerulearn.running import bar, logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        crop_glomeruli(
            Path(snakemake.params.path),
            snakemake.params.mpp,
            Path(snakemake.input.mask),
            read_table(snakemake.input.table),
            json.loads(snakemake.params.cfg)["cropping"],
            Path(snakemake.output.store),
            bar(f"crop {snakemake.wildcards.slide}"),
        )
