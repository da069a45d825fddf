"""Pack the fitted reducers and clusters of every space into one file."""

from pathlib import Path

from glomerulearn.consensus import SPACE
from glomerulearn.fitted import pack_fits
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        spaces = [tuple(space) for space in snakemake.params.spaces]
        voices = [Path(path) for path in snakemake.input.voices]
        pack_fits(
            dict(zip(spaces, map(Path, snakemake.input.reducers), strict=True)),
            dict(zip([*spaces, *([SPACE] if voices else [])], map(Path, snakemake.input.fits), strict=True)),
            voices,
            Path(snakemake.output.fitted),
        )
