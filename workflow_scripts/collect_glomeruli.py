"""Join the glomeruli of all slides with their clusters and grades."""

import json
from pathlib import Path

from glomerulearn.glomerulus_table import collect_glomeruli
from glomerulearn.grading import add_grades
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        table = collect_glomeruli(snakemake.input.detections, snakemake.input.labels, snakemake.input.assignments)
        grades = json.loads(Path(snakemake.input.grades).read_text())
        add_grades(table, snakemake.input.morphology, grades).to_csv(snakemake.output.table, index=False)
