"""Cut the tissue of one slide into patches."""

import json
from pathlib import Path

from glomerulearn.running import bar, logged
from glomerulearn.tiling import tile_slide

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        cfg = json.loads(snakemake.params.cfg)
        row = tile_slide(
            snakemake.wildcards.slide,
            snakemake.params.path,
            snakemake.params.mpp,
            cfg["tiling"],
            snakemake.output.store,
            snakemake.threads,
            bar(f"tile {snakemake.wildcards.slide}"),
        )
        Path(snakemake.output.qc).write_text(json.dumps(row, indent=2) + "\n")
