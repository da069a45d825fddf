"""Draw the variants of one extractor and reducer: scatter and gallery for each method."""

import json
from pathlib import Path

from glomerulearn.figures import VariantFigures
from glomerulearn.labels import read_labels
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        figures = VariantFigures(
            snakemake.wildcards.extractor,
            snakemake.wildcards.reducer,
            Path(snakemake.input.coordinates),
            Path(snakemake.input.fits),
            Path(snakemake.input.variants),
            read_labels(snakemake.input.labels),
            [Path(path) for path in snakemake.input.crops],
        )
        for method, target in zip(snakemake.params.methods, snakemake.output, strict=True):
            figures.draw(method, json.loads(snakemake.params.sites), Path(target))
