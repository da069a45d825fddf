"""The AnnData file holds every glomerulus with its own vectors, and opens in the library that reads it."""

import anndata
import numpy as np
import pandas as pd
import pytest

from glomerulearn.annotated_data import write_annotated_data
from glomerulearn.vectors import write_vectors

NAMES = ["0012", "S-2", "S-3", "S-4"]


@pytest.fixture
def data(tmp_path):
    """Four glomeruli of two slides: the last has no crop, the third is not in the reference."""
    table = pd.DataFrame({
        "slide": ["S", "S", "S", "T"], "glomerulus": NAMES, "centroid_x_px": [1.0, 2.0, 3.0, 4.0], "centroid_y_px": 5.0,
        "label": ["normal", "sclerosed", "", ""], "cut": [False, False, True, None], "contrast": [3.5, 1.5, 2.5, None],
        "net_pca_silhouette": [0, 1, 1, None], "grade": [1, 0, 0, None],
    })  # fmt: skip
    table.to_csv(tmp_path / "glomeruli.csv", index=False)
    vectors = np.arange(9, dtype=np.float32).reshape(3, 3)
    for slide, rows in (("S", slice(0, 3)), ("T", slice(3, 3))):
        records = pd.DataFrame({"glomerulus": NAMES[rows], "cut": False})
        write_vectors(
            tmp_path / f"{slide}.npz", slide, records, vectors[rows], {"weights": "ImageNet", "scale": "kept"}
        )
    coordinates = np.array([[1, 2], [3, 4]], np.float32)
    np.savez(tmp_path / "pca.npz", glomerulus=np.array(NAMES[1::-1]), coordinates=coordinates)  # in another order
    variants = pd.DataFrame({"extractor": ["net"], "reducer": "pca", "method": "silhouette", "k": 2, "chosen": ""})
    write_annotated_data(
        tmp_path / "glomeruli.csv",
        tmp_path / "g.h5ad",
        vectors={"net": [tmp_path / "S.npz", tmp_path / "T.npz"]},
        coordinates={("net", "pca"): tmp_path / "pca.npz"},
        variants=variants,
        slides={"S": {"site": "lab", "patient": ""}, "T": {"site": "", "patient": ""}},
        grades={"extractor": "net", "reducer": "pca", "method": "silhouette"},
    )
    return anndata.read_h5ad(tmp_path / "g.h5ad")


def test_every_glomerulus_has_its_own_vectors(data):
    assert list(data.obs_names) == NAMES and list(data.var_names) == ["contrast"]
    assert np.array_equal(data.X[:, 0], [3.5, 1.5, 2.5, np.nan], equal_nan=True)
    assert np.array_equal(data.obsm["X_net"][:3], np.arange(9).reshape(3, 3)) and np.isnan(data.obsm["X_net"][3]).all()
    assert np.array_equal(data.obsm["X_net_pca"][:2], [[3, 4], [1, 2]]) and np.isnan(data.obsm["X_net_pca"][2:]).all()
    assert np.array_equal(data.obsm["spatial"], [[1, 5], [2, 5], [3, 5], [4, 5]])


def test_what_is_known_of_a_glomerulus_is_a_category_or_missing(data):
    def values(column):
        return data.obs[column].astype(object).where(data.obs[column].notna(), None).tolist()

    assert values("grade") == ["1", "0", "0", None] and list(data.obs["grade"].cat.categories) == ["0", "1"]
    assert values("net_pca_silhouette") == ["0", "1", "1", None]
    assert values("label") == ["normal", "sclerosed", None, None]
    assert values("site") == ["lab"] * 3 + [None] and values("patient") == [None] * 4


def test_how_it_came_about_goes_with_it(data):
    assert data.uns["graded_by"] == "net_pca_silhouette" and data.uns["weights"] == {"net": "ImageNet"}
    assert data.uns["variants"]["k"].tolist() == [2]
