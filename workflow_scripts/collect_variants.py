"""Join the scores of all variants and choose one without labels."""

import pandas as pd

from glomerulearn.choice import choose_variant
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        table = choose_variant(pd.concat([pd.read_csv(path, sep="\t") for path in snakemake.input.tables]))
        table.to_csv(snakemake.output.table, sep="\t", index=False)
