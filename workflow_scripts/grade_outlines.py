"""Write the detected outlines of every slide with their grades."""

from pathlib import Path

import pandas as pd

from glomerulearn.graded_outlines import grade_outlines
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        columns = {"glomerulus": str, "grade": float, "sclerosis_axis": float}
        table = pd.read_csv(snakemake.input.glomeruli, usecols=list(columns), dtype={"glomerulus": str})
        table = table.set_index("glomerulus")
        folder = Path(snakemake.output[0])
        folder.mkdir(parents=True, exist_ok=True)
        for detections in map(Path, snakemake.input.detections):
            grade_outlines(table, detections, folder / detections.name)
