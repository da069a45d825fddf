"""Cohorts too large to be fitted whole: a sample is fitted, the others are placed, and the clusters stay what they were."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.neighbors import kneighbors_graph

from glomerulearn import clusterers, clustering, large_cohorts, reduction
from glomerulearn.assignment import assign_clusters
from glomerulearn.clusterers import CLUSTERERS, LARGEST, silhouette
from glomerulearn.clustering import cluster_glomeruli
from glomerulearn.fitted import pack_fits
from glomerulearn.reduction import REDUCERS, reduce_embeddings
from glomerulearn.vectors import Embeddings

SETTINGS = {"none": {}, "pca": {"components": 5}, "tsne": {"components": 2, "neighbours": 20}}
SETTINGS |= {name: {"components": 3, "neighbours": 10} for name in ("isomap", "umap")}


def clouds(n, seed=0):
    """Vectors float32 (n, 12) in three clouds of different size, and the cloud of each."""
    rng = np.random.default_rng(seed)
    which = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    return (rng.normal(size=(n, 12)) + 6 * np.eye(3, 12)[which]).astype(np.float32), which


@pytest.fixture
def cohort(tmp_path):
    """600 glomeruli on 6 slides of 0 to 200: paths of their vectors, and the cloud of each."""
    vectors, which = clouds(600)
    paths = []
    for number, rows in enumerate(np.split(np.arange(600), [100, 100, 300, 350, 500])):
        paths.append(tmp_path / f"s{number}.npz")
        facts = {"slide": f"s{number}", "weights": "measured", "scale": "kept"}
        names = np.array([f"s{number}-{row}" for row in rows], dtype=str)
        np.savez(
            paths[-1], glomerulus=names, vectors=vectors[rows], cut=np.zeros(len(rows), bool), facts=json.dumps(facts)
        )
    return paths, which


def clusters(paths, reducer, names, folder):
    """The cluster of every glomerulus in every variant, and how many were fitted."""
    folder.mkdir()
    model, coordinates, fits = folder / "m.joblib", folder / "c.npz", folder / "f.npz"
    reduce_embeddings(reducer, paths, SETTINGS[reducer], True, "none", {}, 0, model, coordinates)
    settings = {"k_range": [3, 3], "metrics": ["silhouette"], "clusterers": ["kmeans", *names]}
    cluster_glomeruli("x", reducer, coordinates, {}, settings, 0, fits, folder / "k.tsv", folder / "v.tsv")
    pack_fits({("x", reducer): model}, {("x", reducer): fits}, (), folder / "fitted.zip")
    tables = [assign_clusters(path.stem, "", {"x": path}, folder / "fitted.zip", folder / "a.csv") for path in paths]
    return pd.concat(tables, ignore_index=True), len(np.load(fits)["glomerulus"])


@pytest.mark.parametrize("reducer", REDUCERS)
def test_a_sample_is_fitted_and_all_are_placed(reducer, cohort, tmp_path, monkeypatch):
    paths, which = cohort
    for module in (large_cohorts, reduction):
        monkeypatch.setattr(module, "LARGEST_FIT", 200)
    names = list(CLUSTERERS) if reducer == "pca" else []
    table, n = clusters(paths, reducer, names, tmp_path / "some")
    assert n == 200 and table["glomerulus"].tolist() == Embeddings(paths).glomerulus.tolist()
    for method in ("silhouette", *names):
        assert adjusted_rand_score(which, table[f"x_{reducer}_{method}"]) > 0.9, method


def test_what_costs_the_square_of_the_points_never_sees_more_than_its_share_of_them(cohort, tmp_path, monkeypatch):
    paths, which = cohort
    monkeypatch.setattr(clusterers, "LARGEST", 150)
    measured, join = [], clusterers.join

    def graph(points, neighbours):
        measured.append(len(points))
        return kneighbors_graph(points, neighbours)

    def joined(points, labels, new):
        measured.append(len(points))
        return join(points, labels, new)

    monkeypatch.setattr(clusterers, "kneighbors_graph", graph)
    monkeypatch.setattr(clusterers, "join", joined)
    monkeypatch.setattr(clustering, "join", joined)
    table, n = clusters(paths, "pca", ["spectral", "leiden"], tmp_path / "some")
    variants = pd.read_csv(tmp_path / "some" / "v.tsv", sep="\t").set_index("method")
    assert n == 600 and max(measured) == 150
    assert (variants["stability"] > 0.9).all() and (variants["n"] == 600).all()
    assert adjusted_rand_score(which, table["x_pca_spectral"]) > 0.9


def test_very_many_long_vectors_are_clustered_along_their_leading_components(cohort, tmp_path, monkeypatch):
    paths, which = cohort
    monkeypatch.setattr(reduction, "_LONGEST", 5)
    dimensions = []
    for exact in (600, 599):
        monkeypatch.setattr(reduction, "EXACT_LONG", exact)
        table, _ = clusters(paths, "none", [], tmp_path / str(exact))
        dimensions.append(np.load(tmp_path / str(exact) / "c.npz")["coordinates"].shape[1])
        assert adjusted_rand_score(which, table["x_none_silhouette"]) > 0.95
    assert dimensions == [12, 5]


def test_the_sample_is_the_same_in_every_space_and_everything_where_it_can_be(monkeypatch):
    rows = np.arange(0, 90, 3)
    assert large_cohorts.to_fit_on(rows, 0) is rows
    monkeypatch.setattr(large_cohorts, "LARGEST_FIT", 10)
    some = large_cohorts.to_fit_on(rows, 0)
    assert len(some) == 10 and set(some) < set(rows) and (np.diff(some) > 0).all()
    assert np.array_equal(some, large_cohorts.to_fit_on(rows, 0))


def test_vectors_are_read_row_by_row(cohort):
    paths, _ = cohort
    embeddings = Embeddings(paths)
    rows = np.array([0, 99, 100, 299, 301, 599])
    assert np.array_equal(embeddings.vectors, clouds(600)[0])
    assert np.array_equal(embeddings.rows(rows), embeddings.vectors[rows])
    assert embeddings.rows(rows[:0]).shape == (0, 0) and embeddings.slide[99:101].tolist() == ["s0", "s2"]


def test_silhouette_of_many_has_the_error_that_is_stated():
    """20,000 points: samples are off by no more than three of the largest standard errors, and by one half of one as a rule."""
    points, which = clouds(20_000)
    exact = silhouette_score(points, which)
    errors = [silhouette(points, which, seed) - exact for seed in range(5)]
    assert np.abs(errors).max() < 3 / np.sqrt(LARGEST) and np.sqrt(np.square(errors).mean()) < 0.5 / np.sqrt(LARGEST)
