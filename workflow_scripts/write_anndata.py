"""Write the cohort as AnnData."""

import json
from pathlib import Path

import pandas as pd

from glomerulearn.annotated_data import write_annotated_data
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        extractors, spaces = snakemake.params.extractors, map(tuple, snakemake.params.spaces)
        vectors = [Path(path) for path in snakemake.input.vectors]
        each = len(vectors) // len(extractors)
        write_annotated_data(
            Path(snakemake.input.glomeruli),
            Path(snakemake.output.data),
            vectors={name: vectors[index * each : (index + 1) * each] for index, name in enumerate(extractors)},
            coordinates=dict(zip(spaces, map(Path, snakemake.input.coordinates), strict=True)),
            variants=pd.read_csv(snakemake.input.variants, sep="\t").fillna({"weights": "", "chosen": ""}),
            slides=json.loads(snakemake.params.slides),
            grades=json.loads(Path(snakemake.input.grades).read_text()),
        )
