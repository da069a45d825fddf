"""Clusterers beside K-means, each with its own way to choose how many clusters there are.

Each is a function of points (n, d), the range of k, a seed and the points' `Silhouettes` that returns labels int (n,) and what
fits the same to another sample. New points get the label of most of their nearest fitted neighbours, whatever the clusterer.
"""

from collections.abc import Callable

import numpy as np
from sklearn.metrics import silhouette_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import KNeighborsClassifier, kneighbors_graph

_NEIGHBOURS = 15
LARGEST = 5000  # points that graph clusterers and HDBSCAN are fitted to; the others join by neighbours
_FULL_COVARIANCE = 10  # dimensions up to which a Gaussian's covariance is not taken as diagonal

Fit = Callable[[np.ndarray], np.ndarray]
Score = Callable[[np.ndarray], float]


def gaussian_mixture(points: np.ndarray, k_range: range, seed: int, score: Score) -> tuple[np.ndarray, Fit]:
    """Gaussian mixture; k by the Bayesian information criterion (Schwarz 1978)."""
    from sklearn.mixture import GaussianMixture

    covariance = "full" if points.shape[1] <= _FULL_COVARIANCE else "diag"
    models = [
        GaussianMixture(k, covariance_type=covariance, n_init=3, random_state=seed, reg_covar=1e-5).fit(points)
        for k in k_range
    ]
    best = min(models, key=lambda model: model.bic(points))
    settings = best.get_params() | {"n_init": 1}
    return best.predict(points), lambda sample: GaussianMixture(**settings).fit_predict(sample)


def hdbscan(points: np.ndarray, k_range: range, seed: int, score: Score) -> tuple[np.ndarray, Fit]:
    """HDBSCAN (Campello et al. 2013): as many clusters as are dense; points between them join the nearest."""
    from sklearn.cluster import HDBSCAN

    def fit(sample):
        size = max(5, len(sample) // 20)
        labels = HDBSCAN(min_cluster_size=size, min_samples=5, copy=True).fit_predict(sample)
        dense = labels >= 0
        if not dense.any():
            return np.zeros(len(sample), int)
        return np.where(dense, labels, join(sample[dense], labels[dense], sample))

    return _fit_some(fit, points, seed), fit


def leiden(points: np.ndarray, k_range: range, seed: int, score: Score) -> tuple[np.ndarray, Fit]:
    """Leiden communities (Traag et al. 2019) of the neighbour graph; the resolution with the best silhouette."""
    from sknetwork.clustering import Leiden

    def at(resolution):
        def fit(sample):
            return Leiden(resolution, random_state=seed).fit_predict(_graph(sample))

        return fit

    fits = {resolution: at(resolution) for resolution in (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)}
    found = {resolution: _fit_some(fit, points, seed) for resolution, fit in fits.items()}
    # a graph in many pieces has more communities than anybody asked for at any resolution
    asked = {key: labels for key, labels in found.items() if labels.max() + 1 in k_range} or found
    best = max(asked, key=lambda resolution: score(asked[resolution]))
    return found[best], fits[best]


def spectral(points: np.ndarray, k_range: range, seed: int, score: Score) -> tuple[np.ndarray, Fit]:
    """Spectral clustering (Shi, Malik 2000) of the neighbour graph; the k with the best silhouette."""
    from sklearn.cluster import SpectralClustering

    def at(k):
        def fit(sample):
            return SpectralClustering(k, affinity="precomputed", random_state=seed).fit_predict(_graph(sample))

        return fit

    fits = {k: at(k) for k in k_range}
    found = {k: _fit_some(fit, points, seed) for k, fit in fits.items()}
    best = max(found, key=lambda k: score(found[k]))
    return found[best], fits[best]


CLUSTERERS = {"gmm": gaussian_mixture, "hdbscan": hdbscan, "leiden": leiden, "spectral": spectral}


def join(points: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The label that most of the nearest `points` (n, d) of each of `new` (m, d) have: int (m,)."""
    model = KNeighborsClassifier(min(_NEIGHBOURS, len(points))).fit(points, labels)
    return model.predict(new)


def _fit_some(fit: Fit, points: np.ndarray, seed: int) -> np.ndarray:
    if len(points) <= LARGEST:
        return fit(points)
    some = points[np.random.default_rng(seed).choice(len(points), LARGEST, replace=False)]
    return join(some, fit(some), points)


def _graph(points: np.ndarray):
    graph = kneighbors_graph(points, min(_NEIGHBOURS, len(points) - 1))
    return ((graph + graph.T) / 2).tocsr()


class Silhouettes:
    """Mean silhouettes (Rousseeuw 1987) of clusters of the same points (n, d), whose distances are measured once.

    Exact up to 5,000 points (100 MB of distances in single precision), above that of a sample of so many. Silhouettes lie
    between -1 and 1, so the standard error of the sampled mean is at most 0.014, and as a rule a third of it.
    """

    def __init__(self, points: np.ndarray, seed: int):
        self.rows = np.arange(len(points))
        if len(points) > LARGEST:
            self.rows = np.random.default_rng(seed).choice(self.rows, LARGEST, replace=False)
        self.distances = euclidean_distances(points[self.rows])
        np.fill_diagonal(self.distances, 0)

    def __call__(self, labels: np.ndarray) -> float:
        """The mean over all clusters of labels int (n,); -1 for one cluster."""
        labels = labels[self.rows]
        if (labels == labels[0]).all():
            return -1.0
        return float(silhouette_score(self.distances, labels, metric="precomputed"))


def silhouette(points: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """As `Silhouettes`, of one clustering."""
    return Silhouettes(points, seed)(labels)
