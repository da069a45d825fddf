"""Write the outlines of one slide for another program than QuPath."""

from pathlib import Path

from glomerulearn.export import WRITERS, read_written
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        outlines = read_written(Path(snakemake.input.geojson))
        WRITERS[snakemake.wildcards.program](Path(snakemake.output.outlines), outlines)
