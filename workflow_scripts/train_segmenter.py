"""Train one segmenter."""

import json
from pathlib import Path

from glomerulearn.models import pick_device
from glomerulearn.multi_gpu import run_together
from glomerulearn.running import bar, logged
from glomerulearn.sampling import paired
from glomerulearn.training import train_segmenter

if __name__ == "__main__":
    name = snakemake.wildcards.segmenter.partition(".")[0]  # unet.fold2 is a U-Net
    with logged(snakemake.log[0]):
        task = {
            "name": name,
            "train": paired(snakemake.input.train, snakemake.input.train_outlines),
            "val": paired(snakemake.input.val, snakemake.input.val_outlines),
            "settings": json.loads(snakemake.params.cfg),
            "folder": Path(snakemake.output.weights).parent,
            "threads": max(1, snakemake.threads // max(1, snakemake.resources.gpu)),
            "licence": snakemake.params.licence,
        }
        if snakemake.resources.gpu > 1:
            run_together(snakemake.resources.gpu, train_segmenter, task, log_file=snakemake.log[0])
        else:
            train_segmenter(**task, device=pick_device(snakemake.resources.gpu), progress=bar(f"train {name}"))
