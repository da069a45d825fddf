"""Fine-tune a pretrained network on whether a window holds a glomerulus."""

import json
from pathlib import Path

from glomerulearn.fine_tuning import fine_tune
from glomerulearn.models import pick_device
from glomerulearn.running import bar, logged
from glomerulearn.sampling import paired

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        fine_tune(
            snakemake.wildcards.extractor,
            paired(snakemake.input.train, snakemake.input.train_outlines),
            paired(snakemake.input.val, snakemake.input.val_outlines),
            json.loads(snakemake.params.cfg),
            Path(snakemake.output.weights).parent,
            pick_device(snakemake.resources.gpu),
            snakemake.threads,
            bar(f"fine-tune {snakemake.wildcards.extractor}"),
        )
