"""Draw the learning curves of all segmenters."""

from pathlib import Path

from glomerulearn.figures import draw_learning_curves
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        epochs = {Path(path).parent.name: Path(path) for path in snakemake.input.epochs}
        draw_learning_curves(epochs, Path(snakemake.output.figure))
