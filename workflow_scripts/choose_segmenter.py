"""Choose the best segmenter on the val slides."""

import logging
import shutil
from pathlib import Path

import pandas as pd

from glomerulearn.running import logged
from glomerulearn.scoring import choose_segmenter, read_scores

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        if snakemake.input.tables:
            best = choose_segmenter(pd.concat([read_scores(path) for path in snakemake.input.tables]))
        else:
            best = Path(snakemake.input.models[0]).parent.name
            logging.warning("no val slides to choose by: %s, which config names first, is taken", best)
        for target in snakemake.output:
            shutil.copyfile(Path(target).parents[1] / best / Path(target).name, target)
