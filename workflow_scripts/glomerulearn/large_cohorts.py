"""Which glomeruli models are fitted on, where there are very many.

Up to `LARGEST_FIT` glomeruli all of them are; above, reducers and clusterers are fitted on so many that are drawn at random,
and every other glomerulus is placed with the fitted models, as one of a new slide is. So what a fit costs does not grow
with the cohort, and what placing costs grows in proportion.
"""

import numpy as np

LARGEST_FIT = 20_000


def to_fit_on(rows: np.ndarray, seed: int) -> np.ndarray:
    """The rows int (n,) that models are fitted on, in their order: all, or `LARGEST_FIT` of them, the same for a seed."""
    if len(rows) <= LARGEST_FIT:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, LARGEST_FIT, replace=False))
