"""Fewer dimensions: fit a reducer on the reference cohort, place new glomeruli with the fitted one.

Fitted reducers are kept with joblib (a pickle): they are this workflow's own intermediate files, never taken from outside.
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from glomerulearn.agreement import site_of
from glomerulearn.errors import InputError
from glomerulearn.large_cohorts import LARGEST_FIT, to_fit_on
from glomerulearn.site_effects import SiteEffect
from glomerulearn.vectors import Embeddings

log = logging.getLogger(__name__)

REDUCERS = ("none", "pca", "isomap", "tsne", "umap")
MIN_REFERENCE = 10  # glomeruli below which neither neighbours nor clusters mean anything
EXACT = 5000  # glomeruli up to which Isomap sees all of them and t-SNE's neighbours are exact
EXACT_LONG = 1000  # glomeruli up to which vectors of any length are clustered as they are
_LONGEST = 256  # dimensions of more glomeruli's vectors where no reduction is asked for
_PCA_FIRST = 50  # neighbour methods work on the leading principal components
# Networks' features keep their spread: giving all the same variance makes as much of those in which nothing happens. Only
# measures of different units are brought to one variance.
SCALERS = {"kept": partial(StandardScaler, with_std=False), "standard": StandardScaler}


class Reduction(NamedTuple):
    """What is fitted on the reference cohort: first the site effect, then the reducer."""

    site_effect: SiteEffect
    reducer: Pipeline

    def place(self, vectors: np.ndarray, sites: np.ndarray) -> np.ndarray:
        """Coordinates float64 (n, components) of new vectors (n, d) from slides of these sites (n,; "" = unknown)."""
        if "umap" in self.reducer.named_steps:
            _keep_compiled()
        return np.asarray(self.reducer.transform(self.site_effect.transform(vectors, sites)), np.float64)


class _TSNE(TransformerMixin, BaseEstimator):
    """openTSNE (Policar et al. 2019) behind fit_transform / transform."""

    def __init__(self, components: int, neighbours: int, seed: int):
        self.components, self.neighbours, self.seed = components, neighbours, seed

    def fit(self, x, y=None):
        self.fit_transform(x)
        return self

    def fit_transform(self, x, y=None):
        from openTSNE import TSNE

        settings = {"n_components": self.components, "perplexity": self.neighbours, "random_state": self.seed}
        neighbours = "exact" if len(x) <= EXACT else "auto"
        self.embedding_ = TSNE(neighbors=neighbours, n_jobs=1, **settings).fit(x)
        return np.asarray(self.embedding_)

    def transform(self, x):
        perplexity = min(5, (len(self.embedding_) - 1) // 3)
        return np.asarray(self.embedding_.transform(x, perplexity=perplexity))


def make_reducer(name: str, n: int, d: int, settings: Mapping, seed: int, scale: str = "kept") -> Pipeline:
    """An unfitted reducer for n vectors of length d: scaling, PCA where useful, the method.

    settings: `components`, and `neighbours` for Isomap and UMAP (t-SNE: perplexity), lowered where n is small;
    scale: of `SCALERS`.
    """
    if name not in REDUCERS:
        raise InputError(f"reducer {name!r} is unknown; known are {', '.join(REDUCERS)}")
    scaler = SCALERS[scale]()
    if name == "none":
        long = n > EXACT_LONG and d > _LONGEST
        return make_pipeline(scaler, PCA(_LONGEST, random_state=seed)) if long else make_pipeline(scaler)
    components = min(settings["components"], n - 2, d)
    if name == "pca":
        return make_pipeline(scaler, PCA(components, random_state=seed))
    first = make_pipeline(scaler, PCA(min(_PCA_FIRST, n - 1, d), random_state=seed)).steps
    if name == "isomap":
        from sklearn.manifold import Isomap

        method = Isomap(n_neighbors=min(settings["neighbours"], n - 1), n_components=components)
    elif name == "umap":
        from umap import UMAP

        _keep_compiled()
        method = UMAP(
            n_neighbors=min(settings["neighbours"], n - 1), n_components=components, min_dist=0.0, random_state=seed,
            n_jobs=1,
        )  # fmt: skip
    else:
        method = _TSNE(components, min(settings["neighbours"], max(2, (n - 1) // 3)), seed)
    return Pipeline([*first, (name, method)])


def _keep_compiled() -> None:
    """Have Numba keep what it compiles of UMAP: compiling it again is most of what a job on hundreds of glomeruli takes."""
    from umap import layouts, umap_, utils

    for module in (layouts, umap_, utils):
        for function in vars(module).values():
            if hasattr(function, "enable_caching"):  # Numba compiles it
                try:
                    function.enable_caching()
                except RuntimeError:  # no folder to keep it in
                    return


def reduce_embeddings(
    name: str, paths: list[Path], settings: Mapping, exclude_cut: bool, site_effect: str, sites: Mapping[str, str],
    seed: int, model: Path, coordinates: Path,
) -> None:  # fmt: skip
    """Fit reducer `name` on the reference slides' embeddings; write the fitted `Reduction` and its coordinates.

    site_effect: as `SiteEffect`; sites: slide -> site, needed where there is an effect to take out.
    coordinates (`.npz`): `glomerulus`, `slide`, `coordinates` float32 (n, components), `vectors` (n, d) (the
    embedding, without the site effect, scaled), `weights`; of all reference glomeruli, or where they are very many of those
    that `to_fit_on` draws.
    """
    embeddings = Embeddings(paths)
    kept = np.flatnonzero(~embeddings.cut) if exclude_cut else np.arange(len(embeddings))
    n = len(kept)
    if n < MIN_REFERENCE:
        raise InputError(
            f"{n} whole glomeruli on the {len(paths)} reference slides, at least {MIN_REFERENCE} are needed to cluster; "
            "see results/glomeruli.csv, lower `detection: threshold`, or set `clustering: reference: all`"
        )
    if n > LARGEST_FIT:
        log.info(
            "%s: fitted on %d of %d glomeruli; the others are placed like those of new slides", name, LARGEST_FIT, n
        )
    kept = to_fit_on(kept, seed)
    n = len(kept)
    slides, vectors = embeddings.slide[kept], embeddings.rows(kept)
    effect = SiteEffect(site_effect).fit(vectors, site_of(slides, sites))
    vectors = effect.transform(vectors, site_of(slides, sites))
    reducer = make_reducer(name, n, vectors.shape[1], settings, seed, embeddings.scale)
    if name == "isomap" and n > EXACT:
        # its memory and time grow with the square and the cube: the others are placed among a sample
        some = np.random.default_rng(seed).choice(n, EXACT, replace=False)
        placed = np.asarray(reducer.fit(vectors[some]).transform(vectors), np.float32)
        log.info("isomap: fitted to a sample of %d", EXACT)
    else:
        placed = np.asarray(reducer.fit_transform(vectors), np.float32)
    Path(model).parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(Reduction(effect, reducer), model, compress=3)
    np.savez(
        coordinates,
        glomerulus=embeddings.glomerulus[kept],
        slide=slides,
        coordinates=placed,
        vectors=np.asarray(reducer[0].transform(vectors), np.float32),
        weights=embeddings.weights,
    )
    log.info("%s: %d glomeruli, %d -> %d dimensions", name, n, vectors.shape[1], placed.shape[1])
