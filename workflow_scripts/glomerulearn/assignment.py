"""Give new glomeruli the clusters that were fitted on the reference cohort."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

from glomerulearn import consensus
from glomerulearn.clusterers import join
from glomerulearn.clustering import nearest
from glomerulearn.vectors import Embeddings


def assign_clusters(
    slide: str, site: str, embeddings: Mapping[str, Path], reducers: Mapping, fits: Mapping, voices: Sequence[Path], target: Path
) -> pd.DataFrame:  # fmt: skip
    """Give every glomerulus of one slide its cluster in every variant and write the table.

    site: of the slide ("" = unknown), where site effects are taken out; embeddings: extractor -> file of this slide; reducers,
    fits: (extractor, reducer) -> files of the reference cohort; voices: those of the consensus, if there is one, whose space
    then comes last in fits.
    A glomerulus of the reference cohort keeps the cluster it was fitted with; any other is placed by the fitted reducer
    and given the nearest centre (K-means) or its neighbours' cluster. Columns: `slide`, `glomerulus`, `cut`,
    `random_weights` (the extractors whose weights are random), `{extractor}_{reducer}_{method}`.
    """
    loaded = {extractor: Embeddings([path]) for extractor, path in embeddings.items()}
    first = next(iter(loaded.values()))
    names = first.glomerulus
    random = " ".join(extractor for extractor, embeddings in loaded.items() if embeddings.weights == "random")
    columns = {"slide": np.full(len(names), slide), "glomerulus": names, "cut": first.cut}
    columns["random_weights"] = np.full(len(names), random)
    for (extractor, reducer), path in fits.items():
        fit = dict(np.load(path))
        known = {name: index for index, name in enumerate(fit["glomerulus"])}
        rows = np.array([known.get(name, -1) for name in names], int)
        new = rows < 0
        placed = None
        if new.any() and (extractor, reducer) == consensus.SPACE:
            heard = json.loads(Path(voices[0]).read_text())
            placed = consensus.disagreement_space(heard, {name: column[new] for name, column in columns.items()})
        elif new.any():
            reduction = joblib.load(reducers[extractor, reducer])
            placed = reduction.place(loaded[extractor].vectors[new], np.full(new.sum(), site))
        for method in fit["methods"].tolist():
            fitted = fit[f"labels_{method}"]
            labels = np.zeros(len(names), int)
            labels[~new] = fitted[rows[~new]]
            if new.any():
                centres = fit.get(f"centres_{method}")
                labels[new] = nearest(placed, centres) if centres is not None else join(fit["points"], fitted, placed)
            columns[f"{extractor}_{reducer}_{method}"] = labels
    table = pd.DataFrame(columns)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(target, index=False)
    return table
