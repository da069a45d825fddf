"""Train the second look of one segmenter."""

import json
from pathlib import Path

from glomerulearn.models import pick_device
from glomerulearn.running import bar, logged
from glomerulearn.sampling import paired
from glomerulearn.second_look_training import train_second_look

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        train_second_look(
            Path(snakemake.input.weights).parent,
            paired(snakemake.input.train, snakemake.input.train_outlines),
            paired(snakemake.input.val, snakemake.input.val_outlines),
            {slide: Path(path) for slide, path in snakemake.params.paths.items()},
            json.loads(snakemake.params.cfg),
            Path(snakemake.output.weights).parent,
            pick_device(snakemake.resources.gpu),
            snakemake.threads,
            bar(f"train {snakemake.wildcards.segmenter}, second look"),
            snakemake.params.licence,
        )
