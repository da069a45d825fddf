"""Prove that no slide, file or patient stands in two splits."""

import json

from glomerulearn.leaks import check_leaks
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        check_leaks(
            snakemake.input.patches, json.loads(snakemake.params.cfg), snakemake.output.table, snakemake.input.models
        )
