"""Join the scores of all segmenters and splits, and compare the segmenters."""

import json

import pandas as pd

from glomerulearn.comparison import compare_segmenters, score_groups
from glomerulearn.running import logged
from glomerulearn.scoring import read_scores

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        scores = pd.concat([read_scores(path) for path in snakemake.input.tables])
        cfg = json.loads(snakemake.params.cfg)
        scores["start"] = scores["segmenter"].map(cfg["starts"])
        for target, table in (
            (snakemake.output.table, scores),
            (snakemake.output.groups, score_groups(scores, cfg["groups"])),
            (snakemake.output.comparison, compare_segmenters(scores, cfg["seed"])),
        ):
            table.to_csv(target, sep="\t", index=False)
