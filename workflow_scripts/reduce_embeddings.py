"""Fit a reducer on the reference slides."""

import json
from pathlib import Path

from glomerulearn.reduction import reduce_embeddings
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        cfg = json.loads(snakemake.params.cfg)
        reduce_embeddings(
            snakemake.wildcards.reducer,
            [Path(path) for path in snakemake.input.vectors],
            cfg["reducer"],
            cfg["exclude_cut"],
            cfg["site_effect"],
            cfg["sites"],
            cfg["seed"],
            Path(snakemake.output.model),
            Path(snakemake.output.coordinates),
        )
