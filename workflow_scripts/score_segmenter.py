"""Score a segmenter on the slides of one split."""

from glomerulearn.comparison import score_segmenter
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        slides = zip(snakemake.input.masks, snakemake.input.patches, snakemake.input.outlines, strict=True)
        table = score_segmenter(snakemake.wildcards.segmenter, snakemake.wildcards.split, list(slides))
        table.to_csv(snakemake.output.table, sep="\t", index=False)
