"""Train an autoencoder on the reference slides."""

import json
from pathlib import Path

from glomerulearn.autoencoding import train_autoencoder
from glomerulearn.models import pick_device
from glomerulearn.running import bar, logged

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        train_autoencoder(
            [Path(path) for path in snakemake.input.crops],
            json.loads(snakemake.params.cfg),
            Path(snakemake.output.weights).parent,
            pick_device(snakemake.resources.gpu),
            snakemake.threads,
            bar(f"train {snakemake.wildcards.autoencoder}"),
        )
