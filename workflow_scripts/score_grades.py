"""Score the grades against the labels, and count them per slide and patient."""

import json

import pandas as pd

from glomerulearn.grading import confusion, score_grades, shares
from glomerulearn.running import logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        glomeruli, output = pd.read_csv(snakemake.input.glomeruli), snakemake.output
        cfg = json.loads(snakemake.params.cfg)
        score_grades(glomeruli, cfg["sites"], cfg["order"]).to_csv(output.scores, sep="\t", index=False)
        confusion(glomeruli, cfg["sites"]).to_csv(output.confusion, sep="\t", index=False)
        shares(glomeruli, {slide: slide for slide in glomeruli["slide"]}).to_csv(output.slides, sep="\t", index=False)
        shares(glomeruli, cfg["patients"]).to_csv(output.patients, sep="\t", index=False)
