"""Join the quality rows of all slides."""

import json
from pathlib import Path

import pandas as pd

from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        rows = [json.loads(Path(path).read_text()) for path in snakemake.input]
        pd.DataFrame(rows).convert_dtypes().to_csv(snakemake.output.table, sep="\t", index=False)
