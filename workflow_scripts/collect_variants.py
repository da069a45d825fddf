"""Join the scores of all variants, add their agreement with the labels, and choose one without labels."""

from pathlib import Path

import pandas as pd

from glomerulearn.agreement import add_label_agreement
from glomerulearn.choice import choose_variant
from glomerulearn.labels import read_labels
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        variants = pd.concat([pd.read_csv(path, sep="\t") for path in snakemake.input.tables], ignore_index=True)
        fits = dict(zip(map(tuple, snakemake.params.spaces), map(Path, snakemake.input.fits), strict=True))
        scored = add_label_agreement(variants, fits, read_labels(snakemake.input.labels))
        choose_variant(scored).to_csv(snakemake.output.table, sep="\t", index=False)
