"""Make the demo cohort."""

import json

from glomerulearn.running import logged
from glomerulearn.synthetic import make_cohort

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        cfg = json.loads(snakemake.params.cfg)
        make_cohort(cfg["folder"], seed=cfg["seed"], jobs=snakemake.threads)
