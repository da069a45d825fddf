"""What several variants say together, and how little a poor one counts."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from glomerulearn.assignment import assign_clusters
from glomerulearn.clustering import VARIANT_COLUMNS, cluster_glomeruli
from glomerulearn.consensus import SPACE, disagreement_space, find_consensus, heard
from glomerulearn.fitted import pack_fits

VOICES = [
    {"extractor": "a", "reducer": "pca", "method": "silhouette", "k": 2, "weight": 0.75},
    {"extractor": "b", "reducer": "pca", "method": "gmm", "k": 3, "weight": 0.25},
]


def table(**columns):
    known = {"reducer": "pca", "method": "silhouette", "k": 2, "stability": 1.0, "ari_site": 0.0, "weights": "ImageNet"}
    return pd.DataFrame(known | columns)


def test_distance_is_the_weighted_share_that_parts_them():
    labels = {"a_pca_silhouette": np.array([0, 0, 1]), "b_pca_gmm": np.array([0, 2, 2])}
    points = disagreement_space(VOICES, labels)
    squared = ((points[:, None] - points) ** 2).sum(-1)
    assert points.shape == (3, 5)
    assert squared == pytest.approx(np.array([[0, 0.25, 1], [0.25, 0, 0.75], [1, 0.75, 0]]), abs=1e-6)


def test_poor_and_random_variants_are_not_heard():
    variants = table(
        extractor=["good", "fair", "poor", "luck"],
        separation=[3.0, 1.6, 1.0, 9.0],
        weights=["ImageNet"] * 3 + ["random"],
    )
    voices = heard(variants)
    assert [voice["extractor"] for voice in voices] == ["good", "fair"]
    assert [voice["weight"] for voice in voices] == pytest.approx([3 / 4.6, 1.6 / 4.6])
    assert len(heard(variants.query("weights == 'random'"))) == 1  # better than nobody
    assert len(heard(table(extractor=["one", "cloud"], separation=[np.nan, np.nan]))) == 2


def test_consensus_is_clustered_and_new_glomeruli_join_it(tmp_path):
    """Five variants, each wrong about other tenths: together they are right, also about glomeruli that come later."""
    rng = np.random.default_rng(0)
    truth = np.arange(200) % 2
    names = [f"ref-{i}" for i in range(200)]
    spaces = [(name, "pca") for name in "abcde"]
    tables, coordinates, fits, wrong = [], {}, {}, []
    for number, space in enumerate(spaces):
        labels = np.where(rng.random(200) < 0.1, 1 - truth, truth)
        wrong.append(adjusted_rand_score(truth, labels))
        # every variant numbers its clusters as it likes
        labels = labels if number % 2 else 1 - labels
        tables.append(tmp_path / f"{space[0]}.tsv")
        table(extractor=[space[0]], separation=[2.0]).to_csv(tables[-1], sep="\t", index=False)
        coordinates[space], fits[space] = tmp_path / f"c{number}.npz", tmp_path / f"f{number}.npz"
        points = (labels[:, None] + rng.normal(0, 0.1, (200, 2))).astype(np.float32)
        facts = {"glomerulus": names, "slide": ["ref"] * 200, "weights": "ImageNet"}
        np.savez(coordinates[space], coordinates=points, vectors=points, **facts)
        centres = np.array([[0.0, 0.0], [1.0, 1.0]])
        np.savez(
            fits[space],
            points=points,
            methods=["silhouette"],
            labels_silhouette=labels,
            centres_silhouette=centres,
            **facts,
        )
    voices, space = tmp_path / "voices.json", tmp_path / "consensus.npz"
    find_consensus(tables, coordinates, fits, voices, space)
    assert len(json.loads(voices.read_text())) == 5
    settings = {"k_range": [2, 5], "metrics": ["silhouette"], "clusterers": ["kmeans"]}
    files = tmp_path / "f.npz", tmp_path / "k.tsv", tmp_path / "v.tsv"
    cluster_glomeruli(*SPACE, space, {}, settings, 0, *files)
    found = np.load(files[0])["labels_silhouette"]
    assert adjusted_rand_score(truth, found) > 0.95 > max(wrong)
    row = pd.read_csv(files[2], sep="\t")
    assert list(row.columns) == list(VARIANT_COLUMNS) and row.loc[0, ["extractor", "k"]].tolist() == ["consensus", 2]
    # new glomeruli are placed by the variants first
    vectors = np.array([[0.0, 0.1], [1.0, 0.9], [1.1, 1.0]], np.float32)
    facts = json.dumps({"slide": "new", "extractor": "x", "weights": "ImageNet", "scale": "kept"})
    np.savez(tmp_path / "new.npz", glomerulus=["n1", "n2", "n3"], vectors=vectors, cut=[False] * 3, facts=facts)
    reducers = dict.fromkeys(spaces, tmp_path / "same.joblib")
    _save_identity(tmp_path / "same.joblib")
    embeddings = {name: tmp_path / "new.npz" for name, _ in spaces}
    pack_fits(reducers, fits | {SPACE: files[0]}, [voices], tmp_path / "fitted.zip")
    assigned = assign_clusters("new", "", embeddings, tmp_path / "fitted.zip", tmp_path / "t.csv")
    together = assigned["consensus_variants_silhouette"].tolist()
    assert together[1] == together[2] != together[0]


def _save_identity(target):
    import joblib
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from glomerulearn.reduction import Reduction
    from glomerulearn.site_effects import SiteEffect

    scaler = StandardScaler(with_mean=False, with_std=False).fit(np.zeros((2, 2)))
    joblib.dump(Reduction(SiteEffect("none"), make_pipeline(scaler)), target)
