"""Choose the best segmenter on the val slides."""

import shutil
from pathlib import Path

import pandas as pd

from glomerulearn.running import logged
from glomerulearn.scoring import choose_segmenter, read_scores

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        best = choose_segmenter(pd.concat([read_scores(path) for path in snakemake.input.tables]))
        for target in snakemake.output:
            shutil.copyfile(Path(target).parents[1] / best / Path(target).name, target)
