"""Take in crops that users already have."""

import json
from pathlib import Path

from glomerulearn.cropping import import_crops
from glomerulearn.running import bar, logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        import_crops(
            snakemake.wildcards.slide,
            snakemake.params.rows,
            json.loads(snakemake.params.cfg)["cropping"],
            Path(snakemake.output.store),
            bar(f"import {snakemake.wildcards.slide}"),
        )
