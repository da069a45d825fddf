"""Give the glomeruli of one slide their clusters."""

from pathlib import Path

from glomerulearn.assignment import assign_clusters
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        assign_clusters(
            snakemake.wildcards.slide,
            snakemake.params.site,
            dict(zip(snakemake.params.extractors, map(Path, snakemake.input.embeddings), strict=True)),
            Path(snakemake.input.fitted),
            Path(snakemake.output.table),
        )
