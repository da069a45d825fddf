"""Join the scores of all folds."""

import json

from glomerulearn.comparison import join_folds
from glomerulearn.running import logged
from glomerulearn.scoring import read_scores

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        held = [", ".join(values) for values in json.loads(snakemake.params.cfg)]
        table = join_folds([read_scores(path) for path in snakemake.input.tables], held)
        table.to_csv(snakemake.output.table, sep="\t", index=False)
