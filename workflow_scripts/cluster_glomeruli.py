"""Fit and choose the clusters of one space."""

import json
from pathlib import Path

from glomerulearn.clustering import cluster_glomeruli
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        cfg = json.loads(snakemake.params.cfg)
        cluster_glomeruli(
            snakemake.wildcards.extractor,
            snakemake.wildcards.reducer,
            Path(snakemake.input.coordinates),
            cfg["sites"],
            cfg,
            cfg["seed"],
            Path(snakemake.output.fits),
            Path(snakemake.output.k_scores),
            Path(snakemake.output.variants),
        )
