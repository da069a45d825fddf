"""Write the page that shows the cohort's glomeruli by grade."""

import json
from pathlib import Path

from glomerulearn.atlas import write_atlas
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        write_atlas(
            Path(snakemake.input.glomeruli),
            [Path(path) for path in snakemake.input.crops],
            json.loads(Path(snakemake.input.grades).read_text()),
            json.loads(snakemake.params.sites),
            Path(snakemake.output.page),
        )
