"""Write the outlines of one slide for another program than QuPath."""

from pathlib import Path

import numpy as np

from glomerulearn.export import WRITERS
from glomerulearn.outlines import unpack
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        outlines = unpack(np.fromfile(snakemake.input.geojson, np.uint8))
        WRITERS[snakemake.wildcards.program](Path(snakemake.output.outlines), outlines)
