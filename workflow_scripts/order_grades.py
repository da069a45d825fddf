"""Number the chosen variant's clusters from the least to the most scarred."""

from pathlib import Path

import pandas as pd

from glomerulearn.grading import order_grades
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        order_grades(
            pd.read_csv(snakemake.input.variants, sep="\t"),
            dict(zip(map(tuple, snakemake.params.spaces), map(Path, snakemake.input.fits), strict=True)),
            [Path(path) for path in snakemake.input.morphology],
            Path(snakemake.output.grades),
        )
