"""Which of all variants to take, decided without any label, and which one labels would have chosen.

merit = stability x separation x (1 - agreement with the site). Stability: ARI with clusters of bootstrap samples. Separation:
the silhouette in the embedding, as a multiple of what K-means finds in one Gaussian cloud of the embedding's shape, where
there is nothing to find; so variants of different extractors compare. Clusters that follow the laboratory are marked down.
"""

import logging

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

log = logging.getLogger(__name__)

_DRAWS = 3
_COMPONENTS = 50
_SAMPLE = 3000


def silhouette_of_nothing(vectors: np.ndarray, k: int, seed: int) -> float:
    """Mean silhouette of k K-means clusters in Gaussian clouds with the covariance of `vectors` (n, d).

    The null of SigClust (Liu et al. 2008): one cloud, as elongated as the data, without clusters.
    """
    rng = np.random.default_rng(seed)
    n = min(len(vectors), _SAMPLE)
    components = min(_COMPONENTS, len(vectors) - 1, vectors.shape[1])
    spread = np.sqrt(PCA(components, random_state=seed).fit(vectors).explained_variance_)
    scores = []
    for _ in range(_DRAWS):
        cloud = rng.normal(size=(n, components)) * spread
        scores.append(silhouette_score(cloud, KMeans(k, n_init=3, random_state=seed).fit_predict(cloud)))
    return float(np.mean(scores))


def with_merit(variants: pd.DataFrame) -> pd.DataFrame:
    """The table of variants with column `merit`."""
    site = variants["ari_site"].fillna(0).clip(lower=0)
    return variants.assign(merit=variants["stability"].fillna(0) * variants["separation"].clip(lower=0) * (1 - site))


def choose_variant(variants: pd.DataFrame) -> pd.DataFrame:
    """Add columns `merit` and `chosen` to the table of variants, best merit first.

    `chosen`: `without labels` for the best merit, `with labels` for the best ARI with the label, both joined by `, `, else
    empty. Variants of random weights are never chosen without labels, unless there are no others.
    """
    table = with_merit(variants).sort_values("merit", ascending=False, kind="stable", ignore_index=True)
    honest = table[table["weights"] != "random"]
    if honest.empty:
        log.warning("all extractors have random weights: the chosen variant is no evidence")
        honest = table
    marks = {"without labels": honest["merit"].idxmax()}
    if table["ari_label"].notna().any():
        marks["with labels"] = table["ari_label"].idxmax()
    table["chosen"] = [", ".join(mark for mark, row in marks.items() if row == index) for index in table.index]
    return table
