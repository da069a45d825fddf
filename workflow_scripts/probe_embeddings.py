"""Score what linear probes tell from the vectors of every extractor: the label, and the laboratory."""

import json
from pathlib import Path

import pandas as pd

from glomerulearn.labels import read_labels
from glomerulearn.probing import probe
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        cfg = json.loads(snakemake.params.cfg)
        labels = read_labels(snakemake.input.labels)
        tables = [
            probe(name, [Path(path) for path in snakemake.input[name]], labels, cfg["sites"], cfg["shots"], cfg["seed"])
            for name in snakemake.params.extractors
        ]
        pd.concat(tables).to_csv(snakemake.output.table, sep="\t", index=False)
