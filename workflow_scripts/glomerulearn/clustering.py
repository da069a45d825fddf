"""Group glomeruli without labels, and say how good the groups are.

K-means is fitted once per k; each metric only chooses among the fits. Metrics are computed in the space that was
clustered; `silhouette_embedding` is the same clusters' silhouette in the raw, scaled embedding, since a reduction may
separate what the embedding does not.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_rand_score,
    calinski_harabasz_score,
    davies_bouldin_score,
)

from glomerulearn.agreement import agreement, site_of
from glomerulearn.choice import silhouette_of_nothing
from glomerulearn.clusterers import CLUSTERERS, Silhouettes, join

log = logging.getLogger(__name__)

# whether more is better
METRICS = {"silhouette": True, "davies_bouldin": False, "calinski_harabasz": True}
_BOOTSTRAPS = 10

VARIANT_COLUMNS = (
    "extractor", "reducer", "method", "k", "silhouette", "davies_bouldin", "calinski_harabasz", "silhouette_embedding",
    "separation", "ari_site", "nmi_site", "stability", "n", "n_sites", "weights",
)  # fmt: skip


def cluster_glomeruli(
    extractor: str, reducer: str, coordinates: Path, sites: Mapping[str, str], settings: Mapping, seed: int, fits: Path,
    k_scores: Path, variants: Path,
) -> None:  # fmt: skip
    """Fit every clusterer, let each metric choose the k of K-means, and write fits, scores over k and a row per variant.

    settings: `clusterers` (kmeans, and names of `CLUSTERERS`), `k_range` [lowest, highest], unless coordinates say which,
    `metrics` (names of `METRICS`).
    A variant's `method` is the metric that chose K-means' k, or the clusterer. sites: slide -> site ("" = unknown).
    fits (`.npz`): `glomerulus`, `points` float32 (n, dimensions), `labels_{method}` (n,) of every method, and
    `centres_{method}` (k, dimensions) of those of K-means.
    """
    data = dict(np.load(coordinates))
    points = data["coordinates"]  # single precision: long vectors cost half as much
    low, high = data.get("k_range", settings["k_range"])
    ks = range(max(2, min(low, len(points) - 1)), max(2, min(high, len(points) - 1)) + 1)
    score = _Scores(data, points, site_of(data["slide"], sites), seed)
    models = {k: fit_kmeans(points, k, seed) for k in ks}
    rows = [score.row(labels, _kmeans_again(k, seed)) for k, (_, labels) in models.items()]
    table = pd.DataFrame(rows)
    arrays, found = {}, {}
    if "kmeans" in settings["clusterers"]:
        for metric in settings["metrics"]:
            k = choose_k(table, metric)
            arrays[f"centres_{metric}"], arrays[f"labels_{metric}"] = models[k]
            found[metric] = table[table["k"] == k].to_dict("records")[0]
    for name in settings["clusterers"]:
        if name != "kmeans":
            labels, refit = CLUSTERERS[name](points, ks, seed, score.silhouette)
            arrays[f"labels_{name}"] = labels = by_size(labels)
            found[name] = score.row(labels, lambda sample, refit=refit: (refit(sample), None), score.silhouette.rows)
    best = pd.DataFrame(
        [{"extractor": extractor, "reducer": reducer, "method": method, **row} for method, row in found.items()]
    )
    nothing = {k: silhouette_of_nothing(data["vectors"], k, seed) for k in best["k"].unique() if k > 1}
    best["separation"] = best["silhouette_embedding"] / best["k"].map(nothing)
    Path(fits).parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        fits, glomerulus=data["glomerulus"], points=data["coordinates"], methods=list(found), weights=data["weights"], **arrays
    )  # fmt: skip
    table.to_csv(k_scores, sep="\t", index=False)
    best[list(VARIANT_COLUMNS)].to_csv(variants, sep="\t", index=False)


class _Scores:
    """Scores of the clusters of one space."""

    def __init__(self, data: Mapping, points: np.ndarray, sites: np.ndarray, seed: int):
        self.data, self.points, self.sites, self.seed = data, points, sites, seed
        self.silhouette, self.silhouette_embedding = Silhouettes(points, seed), Silhouettes(data["vectors"], seed)

    def row(self, labels: np.ndarray, refit: Callable, some: np.ndarray | slice = slice(None)) -> dict:
        """One row of a score table; what needs two clusters is NaN where there is one. some: on what stability is judged."""
        scores = dict.fromkeys((*METRICS, "silhouette_embedding"), float("nan"))
        if labels.max() > 0:
            scores = {
                "silhouette": self.silhouette(labels),
                "davies_bouldin": float(davies_bouldin_score(self.points, labels)),
                "calinski_harabasz": float(calinski_harabasz_score(self.points, labels)),
                "silhouette_embedding": self.silhouette_embedding(labels),
            }
        scores["stability"] = stability(self.points[some], labels[some], refit, self.seed)
        facts = {"n": len(labels), "n_sites": len(set(self.sites) - {""}), "weights": str(self.data["weights"])}
        return {"k": int(labels.max()) + 1, **scores, **agreement(labels, self.sites, "site"), **facts}


def fit_kmeans(points: np.ndarray, k: int, seed: int, restarts: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """K-means (Lloyd 1982): centres (k, d) and labels (n,), clusters numbered from the largest to the smallest."""
    model = KMeans(k, n_init=restarts, random_state=seed).fit(points)
    order = np.argsort(-np.bincount(model.labels_, minlength=k), kind="stable")
    return model.cluster_centers_[order], np.argsort(order)[model.labels_]


def by_size(labels: np.ndarray) -> np.ndarray:
    """Clusters numbered from the largest to the smallest, without gaps."""
    _, labels = np.unique(labels, return_inverse=True)
    return np.argsort(np.argsort(-np.bincount(labels), kind="stable"))[labels]


def _kmeans_again(k: int, seed: int) -> Callable:
    def refit(sample):
        # points that differ do so along a line drawn at random, which is sooner looked at than all their coordinates
        line = np.random.default_rng(seed).normal(size=sample.shape[1])
        if len(np.unique(sample @ line)) < k:
            return None, None
        return fit_kmeans(sample, k, seed, restarts=2)[::-1]

    return refit


def choose_k(table: pd.DataFrame, metric: str) -> int:
    """The k whose `metric` is best."""
    column = table[metric]
    return int(table.loc[column.idxmax() if METRICS[metric] else column.idxmin(), "k"])


def stability(points: np.ndarray, labels: np.ndarray, refit: Callable, seed: int) -> float:
    """Mean ARI of the clusters with those found again on bootstrap samples (Hennig 2007): 1 = always the same.

    refit: sample -> its labels (None where it cannot be clustered), and centres, or None where clusters have none.
    """
    if labels.max() == 0:
        return float("nan")
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(_BOOTSTRAPS):
        sample = points[rng.integers(len(points), size=len(points))]
        found, centres = refit(sample)
        if found is not None:
            again = nearest(points, centres) if centres is not None else join(sample, found, points)
            scores.append(adjusted_rand_score(labels, again))
    return float(np.mean(scores)) if scores else float("nan")


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the nearest centre of each point: int (n,)."""
    squares = (centres**2).sum(1) - 2 * points @ centres.T
    return squares.argmin(1)
