"""Score a segmenter on the slides of one split."""

from glomerulearn.comparison import score_segmenter
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        files = zip(snakemake.params.slides, snakemake.input.masks, snakemake.input.patches, strict=True)
        slides = [
            {"slide": slide, "split": snakemake.wildcards.split, "mask": mask, "patches": patches}
            for slide, mask, patches in files
        ]
        table = score_segmenter(snakemake.wildcards.segmenter, slides)
        table.to_csv(snakemake.output.table, sep="\t", index=False)
