"""Give new glomeruli the clusters that were fitted on the reference cohort."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulearn import consensus
from glomerulearn.clusterers import join
from glomerulearn.clustering import nearest
from glomerulearn.fitted import Fitted
from glomerulearn.vectors import Embeddings


def assign_clusters(
    slide: str, site: str, embeddings: Mapping[str, Path], fitted: Path, target: Path
) -> pd.DataFrame:  # fmt: skip
    """Give every glomerulus of one slide its cluster in every variant and write the table.

    site: of the slide ("" = unknown), where site effects are taken out; embeddings: extractor -> file of this slide; fitted:
    what `pack_fits` has written of the reference cohort, the consensus last, if there is one.
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
    with Fitted(fitted) as models:
        for space in models.spaces:
            fit = models.clusters(space)
            known = {name: index for index, name in enumerate(fit["glomerulus"])}
            rows = np.array([known.get(name, -1) for name in names], int)
            new = rows < 0
            placed = None
            if new.any() and space == consensus.SPACE:
                placed = consensus.disagreement_space(
                    models.voices, {name: column[new] for name, column in columns.items()}
                )
            elif new.any():
                placed = models.reduction(space).place(loaded[space[0]].vectors[new], np.full(new.sum(), site))
            for method in fit["methods"].tolist():
                before = fit[f"labels_{method}"]
                labels = np.zeros(len(names), int)
                labels[~new] = before[rows[~new]]
                if new.any():
                    centres = fit.get(f"centres_{method}")
                    labels[new] = (
                        nearest(placed, centres) if centres is not None else join(fit["points"], before, placed)
                    )
                columns["_".join((*space, method))] = labels
    table = pd.DataFrame(columns)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(target, index=False)
    return table
