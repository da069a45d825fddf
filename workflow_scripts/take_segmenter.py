"""Take in one segmenter that was trained elsewhere."""

from pathlib import Path

from glomerulearn.pretrained import take_segmenter
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        take_segmenter(
            snakemake.wildcards.segmenter,
            snakemake.params.path,
            snakemake.params.mpp,
            Path(snakemake.output.weights).parent,
        )
