"""Join the scores of all segmenters and splits."""

import pandas as pd

from glomerulearn.running import logged
from glomerulearn.scoring import read_scores

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        table = pd.concat([read_scores(path) for path in snakemake.input.tables])
        table.to_csv(snakemake.output.table, sep="\t", index=False)
