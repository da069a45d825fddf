"""Give the glomeruli of one slide their clusters."""

from pathlib import Path

from glomerulearn.assignment import assign_clusters
from glomerulearn.consensus import SPACE
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        spaces = [tuple(space) for space in snakemake.params.spaces]
        consensus = [SPACE] if snakemake.input.voices else []
        assign_clusters(
            snakemake.wildcards.slide,
            snakemake.params.site,
            dict(zip(snakemake.params.extractors, map(Path, snakemake.input.embeddings), strict=True)),
            dict(zip(spaces, map(Path, snakemake.input.reducers), strict=True)),
            dict(zip([*spaces, *consensus], map(Path, snakemake.input.fits), strict=True)),
            [Path(path) for path in snakemake.input.voices],
            Path(snakemake.output.table),
        )
