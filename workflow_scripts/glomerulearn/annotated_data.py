"""The cohort as AnnData (Virshup et al. 2024): glomeruli, what is known of each, and their vectors, in one file for scanpy.

The table alone would do for a spreadsheet; vectors, spaces and clusters side by side are what a bioinformatician goes on with.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import write_elem

from glomerulearn.morphology import FEATURES
from glomerulearn.vectors import Embeddings

log = logging.getLogger(__name__)


def write_annotated_data(
    glomeruli: Path, target: Path, vectors: Mapping[str, Sequence[Path]], coordinates: Mapping[tuple[str, str], Path],
    variants: pd.DataFrame, slides: Mapping[str, Mapping[str, str]], grades: Mapping,
) -> None:  # fmt: skip
    """Write all glomeruli of a cohort as `.h5ad`, one extractor's vectors in memory at a time.

    glomeruli: table, as `collect_glomeruli` and `add_grades` write it; vectors: extractor -> files of all slides; coordinates:
    (extractor, reducer) -> file of the reference glomeruli; variants: table of all variants; slides: slide -> what the
    sheet says of it (`site`, `patient`, ...); grades: `extractor`, `reducer`, `method` of the variant that grades are.

    `X` float32 (n, measures): the measures of `morphology`, named. `obs`: the other columns, clusters, grade and names as
    categories. `obsm`: `X_{extractor}` (n, d), the vectors; `X_{extractor}_{reducer}` (n, components), the spaces, and
    `spatial` (n, 2), the centroid in pixels of level 0. NaN: a glomerulus that has none (no crop; not in the reference,
    whose glomeruli alone a space is fitted on). `uns`: `variants`, `graded_by`, `weights` (where each extractor's come from).
    """
    names = {"slide": str, "glomerulus": str, "label": str}  # which stay text, whatever they look like
    table = pd.read_csv(glomeruli, dtype=names, keep_default_na=False, na_values="")
    place = pd.Series(np.arange(len(table)), table["glomerulus"].to_numpy(object))
    embeddings = {extractor: Embeddings(paths) for extractor, paths in vectors.items()}
    data = _known(table, variants, slides)
    data.uns = {"variants": variants, "graded_by": "_".join(grades[key] for key in ("extractor", "reducer", "method"))}
    data.uns["weights"] = {extractor: found.weights for extractor, found in embeddings.items()}
    data.write_h5ad(target)
    with h5py.File(target, "r+") as file:
        for extractor, found in embeddings.items():
            own = found.rows(np.arange(len(found)))
            write_elem(file["obsm"], f"X_{extractor}", _spread(place, found.glomerulus, own))
        for (extractor, reducer), path in coordinates.items():
            with np.load(path) as fitted:
                own = _spread(place, fitted["glomerulus"], fitted["coordinates"])
            write_elem(file["obsm"], f"X_{extractor}_{reducer}", own)
    log.info("%d glomeruli, %d measures, %d spaces", *data.shape, len(embeddings) + len(coordinates))


def _known(glomeruli: pd.DataFrame, variants: pd.DataFrame, slides: Mapping[str, Mapping[str, str]]) -> AnnData:
    """Measures, what else the table and the sheet say, and where glomeruli lie."""
    measures = [name for name in FEATURES if name in glomeruli]
    names = pd.Index(glomeruli["glomerulus"].to_numpy(object), name="glomerulus")
    obs = glomeruli.drop(columns=["glomerulus", *measures]).set_index(names)
    for column in dict.fromkeys(key for row in slides.values() for key in row):
        obs[column] = obs["slide"].map({slide: row[column] for slide, row in slides.items()})
    clusters = ["_".join(key) for key in variants[["extractor", "reducer", "method"]].itertuples(index=False)]
    for column in (*clusters, "grade"):
        obs[column] = obs[column].map(lambda cluster: f"{cluster:.0f}", na_action="ignore")
    for column in obs.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in obs.dtypes]]:
        known = obs[column].notna() & (obs[column] != "")
        obs[column] = pd.Categorical(obs[column].astype(str).where(known, None))
    data = AnnData(glomeruli[measures].to_numpy(np.float32), obs, pd.DataFrame(index=pd.Index(measures, dtype=object)))
    centroids = glomeruli[["centroid_x_px", "centroid_y_px"]].to_numpy(float)
    if not np.isnan(centroids).all():  # crops that users brought have no place on a slide
        data.obsm["spatial"] = centroids
    return data


def _spread(place: pd.Series, names: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (m, d) of some glomeruli, as rows of all: float32 (n, d), NaN where there is none."""
    rows = np.full((len(place), values.shape[1]), np.nan, np.float32)
    rows[place[names.astype(object)].to_numpy()] = values
    return rows
