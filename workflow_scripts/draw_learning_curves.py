"""Draw the learning curves of all segmenters."""

from pathlib import Path

from glomerulearn.figures import draw_learning_curves
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        looks = {
            look: dict(zip(snakemake.params.segmenters, map(Path, paths), strict=True))
            for look, paths in (("first look", snakemake.input.first), ("second look", snakemake.input.second))
            if paths
        }
        draw_learning_curves(looks, Path(snakemake.output.figure))
