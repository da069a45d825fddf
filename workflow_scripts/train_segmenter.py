"""Train one segmenter."""

import json
from pathlib import Path

from glomerulearn.models import pick_device
from glomerulearn.running import bar, logged
from glomerulearn.training import train_segmenter

if __name__ == "__main__":
    name = snakemake.wildcards.segmenter.partition(".")[0]  # unet.fold2 is a U-Net
    with logged(snakemake.log[0]):
        train_segmenter(
            name,
            [Path(path) for path in snakemake.input.train],
            [Path(path) for path in snakemake.input.val],
            json.loads(snakemake.params.cfg),
            Path(snakemake.output.weights).parent,
            pick_device(snakemake.resources.gpu),
            snakemake.threads,
            bar(f"train {name}"),
            snakemake.params.licence,
        )
