"""Give the glomeruli of one slide the labels that are known of them."""

import json
from pathlib import Path

from glomerulearn.labels import label_crops, label_glomeruli
from glomerulearn.outlines import SlideOutlines
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        rows = json.loads(snakemake.params.rows)
        if snakemake.input.detections:
            outlines = [each for path in snakemake.input.outlines for each in SlideOutlines(path).outlines]
            quality = json.loads(Path(snakemake.input.qc).read_text())
            table = label_glomeruli(Path(snakemake.input.detections), outlines, rows, quality["mpp_level0"])
        else:
            table = label_crops(rows)
        table.to_csv(snakemake.output.labels, index=False)
