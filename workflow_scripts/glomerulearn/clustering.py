"""Group glomeruli without labels, say how good the groups are, and assign new ones to them.

K-means is fitted once per k; each metric only chooses among the fits. Metrics are computed in the space that was
clustered; `silhouette_embedding` is the same clusters' silhouette in the raw, standardised embedding, since a reduction
may separate what the embedding does not.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_rand_score,
    calinski_harabasz_score,
    davies_bouldin_score,
    normalized_mutual_info_score,
    silhouette_score,
)
from sklearn.preprocessing import StandardScaler

from glomerulearn.vectors import Embeddings

log = logging.getLogger(__name__)

# score function, and whether more is better
METRICS = {
    "silhouette": (silhouette_score, True),
    "davies_bouldin": (davies_bouldin_score, False),
    "calinski_harabasz": (calinski_harabasz_score, True),
}
_BOOTSTRAPS = 10

VARIANT_COLUMNS = (
    "extractor", "reducer", "metric", "k", "score", "silhouette", "silhouette_embedding", "ari_label", "nmi_label", "ari_site",
    "nmi_site", "stability", "n", "n_labelled", "n_sites", "weights",
)  # fmt: skip


def cluster_glomeruli(
    extractor: str, reducer: str, coordinates: Path, sites: Mapping[str, str], settings: Mapping, seed: int, fits: Path,
    k_scores: Path, variants: Path,
) -> None:  # fmt: skip
    """Fit K-means for every k, choose k by each metric, and write the fits, the scores over k and one row per variant.

    settings: `k_range` [lowest, highest], `metrics` (names of `METRICS`). sites: slide -> site ("" = unknown).
    fits (`.npz`): `glomerulus`, and for each k `centres_{k}` (k, dimensions) and `labels_{k}` (n,); `chosen` (JSON:
    metric -> k).
    """
    data = dict(np.load(coordinates))
    points = data["coordinates"].astype(np.float64)
    embedding = StandardScaler().fit_transform(data["vectors"])
    low, high = settings["k_range"]
    ks = range(max(2, min(low, len(points) - 1)), max(2, min(high, len(points) - 1)) + 1)
    models = {k: fit_kmeans(points, k, seed) for k in ks}
    rows = []
    for k, (_, labels) in models.items():
        scores = {name: float(score(points, labels)) for name, (score, _) in METRICS.items()}
        scores["silhouette_embedding"] = float(silhouette_score(embedding, labels))
        scores["stability"] = stability(points, labels, k, seed)
        agreements = agreement(labels, data["label"], site_of(data["slide"], sites))
        rows.append({"k": k, **scores, **agreements, "n": len(points), "weights": str(data["weights"])})
    table = pd.DataFrame(rows)
    chosen = {metric: choose_k(table, metric) for metric in settings["metrics"]}
    best = [
        {
            "extractor": extractor,
            "reducer": reducer,
            "metric": metric,
            "score": row[metric],
            **row,
        }
        for metric, k in chosen.items()
        for row in table[table["k"] == k].to_dict("records")
    ]
    Path(fits).parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"centres_{k}": centres for k, (centres, _) in models.items()}
    arrays |= {f"labels_{k}": labels for k, (_, labels) in models.items()}
    np.savez(fits, glomerulus=data["glomerulus"], chosen=json.dumps(chosen), weights=data["weights"], **arrays)
    table.to_csv(k_scores, sep="\t", index=False)
    pd.DataFrame(best)[list(VARIANT_COLUMNS)].to_csv(variants, sep="\t", index=False)


def fit_kmeans(points: np.ndarray, k: int, seed: int, restarts: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """K-means (Lloyd 1982): centres (k, d) and labels (n,), clusters numbered from the largest to the smallest."""
    model = KMeans(k, n_init=restarts, random_state=seed).fit(points)
    order = np.argsort(-np.bincount(model.labels_, minlength=k), kind="stable")
    return model.cluster_centers_[order], np.argsort(order)[model.labels_]


def choose_k(table: pd.DataFrame, metric: str) -> int:
    """The k whose `metric` is best."""
    column = table[metric]
    return int(table.loc[column.idxmax() if METRICS[metric][1] else column.idxmin(), "k"])


def stability(points: np.ndarray, labels: np.ndarray, k: int, seed: int) -> float:
    """Mean ARI of the clusters with those found again on bootstrap samples (Hennig 2007): 1 = always the same."""
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(_BOOTSTRAPS):
        sample = points[rng.integers(len(points), size=len(points))]
        if len(np.unique(sample, axis=0)) < k:
            continue
        centres, _ = fit_kmeans(sample, k, seed, restarts=2)
        scores.append(adjusted_rand_score(labels, nearest(points, centres)))
    return float(np.mean(scores)) if scores else float("nan")


def agreement(labels: np.ndarray, truth: np.ndarray, sites: np.ndarray) -> dict:
    """ARI and NMI of clusters with the pathologist's label and with the site, each over the glomeruli that have one."""
    known, placed = truth != "", sites != ""
    return {
        **_pair("label", labels[known], truth[known]),
        **_pair("site", labels[placed], sites[placed]),
        "n_labelled": int(known.sum()),
        "n_sites": len(set(sites[placed])),
    }


def _pair(name: str, labels: np.ndarray, truth: np.ndarray) -> dict:
    # against a single class every agreement is 0 or 1 by definition: nothing to report
    if len(set(truth)) < 2:
        return {f"ari_{name}": float("nan"), f"nmi_{name}": float("nan")}
    return {
        f"ari_{name}": float(adjusted_rand_score(truth, labels)),
        f"nmi_{name}": float(normalized_mutual_info_score(truth, labels)),
    }


def site_of(slides: np.ndarray, sites: Mapping[str, str]) -> np.ndarray:
    """The site of each glomerulus' slide."""
    return np.array([sites.get(str(slide), "") for slide in slides], dtype=str)


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the nearest centre of each point: int (n,)."""
    squares = (centres**2).sum(1) - 2 * points @ centres.T
    return squares.argmin(1)


def assign_clusters(
    slide: str, embeddings: Mapping[str, Path], reducers: Mapping, fits: Mapping, target: Path
) -> pd.DataFrame:
    """Give every glomerulus of one slide its cluster in every variant and write the table.

    embeddings: extractor -> file of this slide; reducers, fits: (extractor, reducer) -> files of the reference cohort.
    A glomerulus of the reference cohort keeps the cluster it was fitted with; any other is placed by the fitted reducer
    and given the nearest centre. Columns: `slide`, `glomerulus`, `label`, `cut`, `random_weights` (the extractors whose
    weights are random), `{extractor}_{reducer}_{metric}`.
    """
    loaded = {extractor: Embeddings([path]) for extractor, path in embeddings.items()}
    first = next(iter(loaded.values()))
    names = first.glomerulus
    random = " ".join(extractor for extractor, embeddings in loaded.items() if embeddings.weights == "random")
    columns = {"slide": np.full(len(names), slide), "glomerulus": names, "label": first.label, "cut": first.cut}
    columns["random_weights"] = np.full(len(names), random)
    for (extractor, reducer), path in fits.items():
        fit = dict(np.load(path))
        known = {name: index for index, name in enumerate(fit["glomerulus"])}
        rows = np.array([known.get(name, -1) for name in names], int)
        new = rows < 0
        placed = None
        if new.any():
            model = joblib.load(reducers[extractor, reducer])
            placed = np.asarray(model.transform(loaded[extractor].vectors[new]), np.float64)
        for metric, k in json.loads(str(fit["chosen"])).items():
            labels = np.zeros(len(names), int)
            labels[~new] = fit[f"labels_{k}"][rows[~new]]
            if new.any():
                labels[new] = nearest(placed, fit[f"centres_{k}"])
            columns[f"{extractor}_{reducer}_{metric}"] = labels
    table = pd.DataFrame(columns)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(target, index=False)
    return table
