"""Take out of vectors what all glomeruli of a site have in common, fitted on the reference cohort.

What a site has in common may be its stain or its patients: where sites differ in how much sclerosis they have, that goes
too. So this is off unless config asks for it. (Harmony is not here: it has no way to place new slides.)
"""

import logging
from collections.abc import Sequence

import numpy as np

log = logging.getLogger(__name__)

_MIN_OF_A_SITE = 5  # glomeruli; the mean of fewer is that of a few patients


class SiteEffect:
    """What a site adds to a vector, by `none`, `centre` (the site's mean, less that of all sites' glomeruli) or `combat`
    (Johnson, Li, Rabinovic 2007: mean and spread of every feature, drawn towards those of the other features; through
    combatlearn).

    Sites with fewer than five glomeruli and glomeruli of unknown site (`""`) are left as they are, and the log says so.
    """

    def __init__(self, method: str):
        self.method = method
        self.sites: list[str] = []

    def fit(self, vectors: np.ndarray, sites: Sequence[str]) -> "SiteEffect":
        """vectors: (n, d); sites: of each."""
        if self.method == "none":
            return self
        sites = np.asarray(sites, dtype=str)
        names, counts = np.unique(sites[sites != ""], return_counts=True)
        self.sites = names[counts >= _MIN_OF_A_SITE].tolist()
        if len(self.sites) < 2:
            log.warning(
                "site effect: fewer than two sites with %d glomeruli; vectors are left as they are", _MIN_OF_A_SITE
            )
            self.sites = []
            return self
        rows = np.isin(sites, self.sites)
        if self.method == "centre":
            mean = vectors[rows].mean(0)
            self._shift = {site: vectors[sites == site].mean(0) - mean for site in self.sites}
        else:
            self._combat = _fit_combat(vectors[rows], sites[rows])
        return self

    def transform(self, vectors: np.ndarray, sites: Sequence[str]) -> np.ndarray:
        """Vectors (n, d) without the effect of their sites, in the dtype they came in."""
        if self.method == "none" or not self.sites or not len(vectors):
            return vectors
        sites = np.asarray(sites, dtype=str)
        rows = np.isin(sites, self.sites)
        if not rows.all():
            unknown = ", ".join(sorted({site or "unknown" for site in sites[~rows].tolist()}))
            log.warning(
                "site effect: %d glomeruli of sites that are not known well are left as they are: %s",
                (~rows).sum(),
                unknown,
            )
        result = vectors.copy()
        if rows.any():
            if self.method == "centre":
                result[rows] -= np.stack([self._shift[site] for site in sites[rows]])
            else:
                model, varies = self._combat
                changed = model.transform(vectors[rows][:, varies].astype(np.float64), batch=sites[rows])
                result[np.ix_(rows, varies)] = changed.to_numpy()
        return result


def _fit_combat(vectors: np.ndarray, sites: np.ndarray) -> tuple:
    from combatlearn.core import ComBatModel  # slow to import: it brings a plotting library

    # a feature that does not vary within a site has no spread to bring to that of the others
    varies = np.all([vectors[sites == site].std(0) > 1e-6 for site in np.unique(sites)], axis=0)
    return ComBatModel(method="johnson").fit(vectors[:, varies].astype(np.float64), batch=sites), varies
