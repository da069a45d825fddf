"""Draw the truth and every segmenter on the test slides."""

from pathlib import Path

from glomerulearn.figures import draw_segmentations
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        slides = [
            {
                "patches": Path(snakemake.input.patches[number]),
                "outlines": Path(snakemake.input.outlines[number]),
                "masks": {name: Path(snakemake.input[name][number]) for name in snakemake.params.segmenters},
            }
            for number in range(len(snakemake.input.patches))
        ]
        draw_segmentations(slides, Path(snakemake.output.figure))
