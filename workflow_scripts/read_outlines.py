"""Read the pathologist's outlines of one slide."""

import json
from pathlib import Path

from glomerulearn.running import logged
from glomerulearn.slide_outlines import read_slide_outlines

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        read_slide_outlines(
            snakemake.wildcards.slide,
            snakemake.params.path,
            snakemake.params.annotation,
            snakemake.params.mpp,
            json.loads(snakemake.params.cfg)["outlines"],
            Path(snakemake.output.outlines),
        )
