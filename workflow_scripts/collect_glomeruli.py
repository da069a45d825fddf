"""Join the glomeruli of all slides with their clusters."""

from glomerulearn.glomeruli import collect_glomeruli
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        table = collect_glomeruli(snakemake.input.detections, snakemake.input.assignments)
        table.to_csv(snakemake.output.table, index=False)
