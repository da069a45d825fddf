"""Draw the scores over k of all spaces."""

from pathlib import Path

from glomerulearn.figures import draw_k_scores
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        tables = {tuple(Path(path).stem.split("_")): Path(path) for path in snakemake.input.k_scores}
        draw_k_scores(tables, snakemake.params.weights, Path(snakemake.output.figure))
