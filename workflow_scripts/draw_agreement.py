"""Draw how far every variant agrees with the label and with the site."""

from pathlib import Path

import pandas as pd

from glomerulearn.figures import draw_agreement
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        draw_agreement(pd.read_csv(snakemake.input.variants, sep="\t"), Path(snakemake.output.figure))
