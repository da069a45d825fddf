"""Score a segmenter on the slides of one split."""

import json

from glomerulearn.comparison import score_segmenter
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        files = zip(snakemake.params.annotations.items(), snakemake.input.masks, snakemake.input.patches, strict=True)
        slides = [
            {
                "slide": slide,
                "split": snakemake.wildcards.split,
                "mask": mask,
                "patches": patches,
                "annotation": annotation,
            }
            for (slide, annotation), mask, patches in files
        ]
        classes = json.loads(snakemake.params.cfg)["outlines"]["classes"]
        table = score_segmenter(snakemake.wildcards.segmenter, slides, classes)
        table.to_csv(snakemake.output.table, sep="\t", index=False)
