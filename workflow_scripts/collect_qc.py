"""Join the quality rows of all slides."""

import json
from pathlib import Path

import pandas as pd

from glomerulearn.outlines import SlideOutlines
from glomerulearn.quality import quality_row
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        outlines = {facts["slide"]: facts for facts in (SlideOutlines(path).facts for path in snakemake.input.outlines)}
        rows = [json.loads(Path(path).read_text()) for path in snakemake.input.slides]
        rows = [quality_row(row, outlines.get(row["slide"])) for row in rows]
        pd.DataFrame(rows).convert_dtypes().to_csv(snakemake.output.table, sep="\t", index=False)
