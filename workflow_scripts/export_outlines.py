"""Write the outlines of one slide for another program than QuPath."""

import json
from pathlib import Path

from glomerulearn.export import WRITERS
from glomerulearn.outlines import unpack
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        outlines = unpack(json.loads(Path(snakemake.input.geojson).read_text()))
        WRITERS[snakemake.wildcards.program](Path(snakemake.output.outlines), outlines)
