"""Lay out the reference glomeruli by how many variants part them."""

from pathlib import Path

from glomerulearn.consensus import find_consensus
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        spaces = [tuple(space) for space in snakemake.params.spaces]
        find_consensus(
            [Path(path) for path in snakemake.input.tables],
            dict(zip(spaces, map(Path, snakemake.input.coordinates), strict=True)),
            dict(zip(spaces, map(Path, snakemake.input.fits), strict=True)),
            Path(snakemake.output.voices),
            Path(snakemake.output.coordinates),
        )
