"""Crops, stain, vectors, reduction and clusters: what they promise about new slides, labels, sites and weights."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from glomerulearn.autoencoding import train_autoencoder
from glomerulearn.clustering import (
    METRICS,
    agreement,
    assign_clusters,
    choose_k,
    cluster_glomeruli,
    fit_kmeans,
    stability,
)
from glomerulearn.cropping import crop_glomeruli, import_crops
from glomerulearn.crops import CropStore, write_crops
from glomerulearn.embedding import embed_slide, prepare
from glomerulearn.errors import InputError
from glomerulearn.glomeruli import TABLE_COLUMNS
from glomerulearn.masks import write_masks
from glomerulearn.reduction import REDUCERS, reduce_embeddings
from glomerulearn.stain import TARGET_MEAN, normalise
from glomerulearn.vectors import Embeddings

CPU = torch.device("cpu")
PIXELS = {"stain": "reinhard", "mask_background": True, "box": True}
RANDOM = {
    "pixels": PIXELS,
    "orientations": 1,
    "size_px": 32,
    "batch": 4,
    "weights": "random",
    "sha256": None,
    "seed": 3,
}
REDUCTION = {"none": {}, "pca": {"components": 5}}
REDUCTION |= {name: {"components": 3, "neighbours": 8} for name in ("isomap", "umap")}
REDUCTION |= {"tsne": {"components": 2, "neighbours": 8}}


def write_vectors(path, slide, vectors, labels=None, cut=None, weights="trained on the cohort"):
    n = len(vectors)
    np.savez(
        path,
        glomerulus=np.array([f"{slide}-{i}" for i in range(n)], dtype=str),
        vectors=np.asarray(vectors, np.float32),
        cut=np.zeros(n, bool) if cut is None else cut,
        label=np.array(labels if labels is not None else [""] * n, dtype=str),
        facts=json.dumps({"extractor": "autoencoder", "slide": slide, "weights": weights}),
    )
    return path


def blobs(n, seed, d=12):
    rng = np.random.default_rng(seed)
    which = np.arange(n) % 2
    return rng.normal(0, 1, (n, d)) + 6 * which[:, None], which


def test_crops_are_centred_with_their_mask(small_slide, tmp_path):
    path, _, truth = small_slide
    polygon = truth.polygons[0]
    instances = np.kron((truth.mask > 0)[::2, ::2], np.ones((1, 1), int)).astype(np.int32)
    x, y = polygon.centroid.x, polygon.centroid.y
    half = int(np.sqrt(polygon.area))
    alone = np.zeros_like(instances)
    window = np.s_[max(0, int(y - half) // 2) : int(y + half) // 2, max(0, int(x - half) // 2) : int(x + half) // 2]
    alone[window] = instances[window]
    write_masks(tmp_path / "m.zarr.zip", (alone * 255).astype(np.uint8), alone, {"slide": "small", "mpp": 2.0})
    row = dict.fromkeys(TABLE_COLUMNS, "") | {"slide": "small", "glomerulus": "small-0001", "touches_border": False}
    table = pd.DataFrame([row | {"centroid_x_px": x, "centroid_y_px": y}])
    crop_glomeruli(
        path, None, tmp_path / "m.zarr.zip", table, {"field_um": 400.0, "size_px": 200}, tmp_path / "c.zarr.zip"
    )
    store = CropStore(tmp_path / "c.zarr.zip")
    mask = store.masks[0]
    assert store.images.shape == (1, 200, 200, 3)
    assert mask.sum() * 2.0**2 == pytest.approx(polygon.area, rel=0.05)
    rows, columns = np.nonzero(mask)
    assert abs(rows.mean() - 99.5) < 1.5 and abs(columns.mean() - 99.5) < 1.5


def test_own_crops_come_in_with_mask_and_label(tmp_path):
    Image.new("RGB", (60, 40), (200, 50, 120)).save(tmp_path / "g.png")
    Image.fromarray(np.pad(np.full((20, 30), 255, np.uint8), ((10, 10), (15, 15)))).save(tmp_path / "m.png")
    rows = [
        {"glomerulus": "g1", "image": str(tmp_path / "g.png"), "mask": str(tmp_path / "m.png"), "label": "normal"},
        {"glomerulus": "g2", "image": str(tmp_path / "g.png"), "mask": ""},
    ]
    import_crops("own", rows, {"size_px": 64}, tmp_path / "c.zarr.zip")
    store = CropStore(tmp_path / "c.zarr.zip")
    assert list(store.records["label"]) == ["normal", ""] and store.masks[1].mean() == pytest.approx(2 / 3, abs=0.02)
    # 30 x 20 px of glomerulus in an image that was 60 x 40 and is made square, not squashed
    assert store.masks[0].mean() == pytest.approx(600 / 3600, abs=0.02)
    high, wide = (np.ptp(places) for places in np.nonzero(store.masks[0]))
    assert wide / high == pytest.approx(1.5, abs=0.1)
    Image.new("L", (10, 10)).save(tmp_path / "m.png")
    with pytest.raises(InputError, match=r"m\.png.*g1.*10 x 10.*60 x 40"):
        import_crops("own", rows, {"size_px": 64}, tmp_path / "d.zarr.zip")
    (tmp_path / "g.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"g\.png: image of glomerulus g1"):
        import_crops("own", rows, {"size_px": 64}, tmp_path / "d.zarr.zip")


@pytest.mark.parametrize("method", ["reinhard", "macenko"])
def test_stain_normalisation_brings_real_slides_together(shared, method):
    folder = shared / "glomeruli-crops"
    colours = {"none": [], method: []}
    for _, part in pd.read_csv(folder / "labels.tsv", sep="\t").groupby("slide"):
        names = part["glomerulus"].head(6)
        images = np.stack([np.asarray(Image.open(folder / "crops" / f"{n}.png").convert("RGB")) for n in names])
        masks = np.stack([np.asarray(Image.open(folder / "masks" / f"{n}.png").convert("L")) > 127 for n in names])
        for key in colours:
            colours[key].append(normalise(images, masks, key)[masks].mean(0))
    spread = {key: np.std(values, axis=0).mean() for key, values in colours.items()}
    assert spread[method] < 0.6 * spread["none"]


def test_too_few_pixels_leave_the_stain(caplog):
    images = np.full((1, 8, 8, 3), 100, np.uint8)
    assert np.array_equal(normalise(images, np.ones((1, 8, 8), bool), "reinhard"), images)
    assert "left as it is" in caplog.text and len(TARGET_MEAN) == 3


@pytest.fixture
def crop_store(tmp_path):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    images = rng.integers(60, 220, (6, 64, 64, 3), dtype=np.uint8)
    masks = [np.hypot(x - 32, y - 32) < radius for radius in (10, 14, 18, 22, 26, 30)]
    records = [{"glomerulus": f"g{i}", "label": "", "cut": i == 5} for i in range(6)]
    write_crops(tmp_path / "crops.zarr.zip", "S", list(images), masks, records, {"size_px": 64})
    return tmp_path / "crops.zarr.zip"


def test_background_is_hidden_and_size_taken_out(crop_store):
    images, masks = prepare(CropStore(crop_store), PIXELS, 48)
    assert images.shape == (6, 3, 48, 48) and (images[:, :, masks[0] == 0] != 0).sum() < images.size
    assert np.abs(images.transpose(0, 2, 3, 1)[masks == 0]).max() == 0
    shares = masks.mean((1, 2))
    assert np.ptp(shares) < 0.08  # every glomerulus fills its box, whatever its radius
    whole, _ = prepare(CropStore(crop_store), PIXELS | {"mask_background": False, "box": False, "stain": "none"}, 64)
    assert np.abs(whole[:, :, 0, 0]).min() > 0


def test_autoencoder_trains_and_embeds(crop_store, tmp_path):
    settings = {
        "pixels": PIXELS, "size_px": 64, "channels": [8, 16, 16], "latent": 8, "epochs": 30, "batch": 4,
        "learning_rate": 0.005, "val_share": 0.2, "seed": 0,
    }  # fmt: skip
    train_autoencoder([crop_store], settings, tmp_path / "ae", CPU)
    epochs = pd.read_csv(tmp_path / "ae" / "epochs.csv")
    assert epochs["train_loss"].iloc[-1] < epochs["train_loss"].iloc[0]
    more = settings | {"orientations": 8}
    embed_slide("autoencoder", crop_store, more, tmp_path / "ae", tmp_path / "e.npz", CPU)
    embeddings = Embeddings([tmp_path / "e.npz"])
    assert embeddings.vectors.shape == (6, 8) and embeddings.weights == "trained on the cohort"
    assert list(embeddings.cut) == [False] * 5 + [True]
    with pytest.raises(InputError, match="too few"):
        write_crops(tmp_path / "none.zarr.zip", "N", [], [], [], {"size_px": 64})
        train_autoencoder([tmp_path / "none.zarr.zip"], settings, tmp_path / "no", CPU)


@pytest.mark.parametrize(("extractor", "length"), [("vgg19", 512), ("resnet50", 2048)])
def test_random_weights_are_seeded_and_say_so(extractor, length, crop_store, tmp_path, caplog):
    for name in "ab":
        embed_slide(extractor, crop_store, RANDOM, None, tmp_path / f"{name}.npz", CPU)
    first, second = (Embeddings([tmp_path / f"{name}.npz"]) for name in "ab")
    assert first.vectors.shape == (6, length) and np.array_equal(first.vectors, second.vectors)
    assert first.weights == "random" and "RANDOM" in caplog.text


def test_slide_without_glomeruli_has_no_vectors(tmp_path):
    write_crops(tmp_path / "none.zarr.zip", "N", [], [], [], {"size_px": 64})
    embed_slide("resnet50", tmp_path / "none.zarr.zip", RANDOM, None, tmp_path / "n.npz", CPU)
    write_vectors(tmp_path / "s.npz", "S", blobs(4, 0)[0])
    joined = Embeddings([tmp_path / "n.npz", tmp_path / "s.npz"])
    assert len(joined) == 4 and set(joined.slide) == {"S"}


@pytest.mark.parametrize("reducer", REDUCERS)
def test_fitted_once_then_assigned(reducer, tmp_path):
    """Clusters follow the two groups; reference glomeruli keep their cluster, new ones get their group's."""
    vectors, which = blobs(60, 1)
    names = ["normal", "sclerosed"]
    reference = write_vectors(tmp_path / "ref.npz", "ref", vectors, [names[w] for w in which], np.arange(60) >= 56)
    model, coordinates = tmp_path / "m.joblib", tmp_path / "c.npz"
    reduce_embeddings(reducer, [reference], REDUCTION[reducer], True, 0, model, coordinates)
    again = tmp_path / "again.npz"
    reduce_embeddings(reducer, [reference], REDUCTION[reducer], True, 0, tmp_path / "m2.joblib", again)
    assert np.array_equal(np.load(coordinates)["coordinates"], np.load(again)["coordinates"])
    assert len(np.load(coordinates)["glomerulus"]) == 56  # cut ones are not fitted on
    fits, k_scores, variants = (tmp_path / name for name in ("f.npz", "k.tsv", "v.tsv"))
    settings = {"k_range": [2, 5], "metrics": list(METRICS)}
    cluster_glomeruli("autoencoder", reducer, coordinates, {"ref": "lab"}, settings, 0, fits, k_scores, variants)
    table = pd.read_csv(variants, sep="\t").set_index("metric")
    row = table.loc["silhouette"]
    assert row["k"] == 2 and row["ari_label"] > 0.9 and row["n"] == 56 and row["stability"] > 0.9
    assert np.isnan(row["ari_site"])  # one site agrees with nothing
    assert row["score"] == pytest.approx(pd.read_csv(k_scores, sep="\t").set_index("k").loc[2, "silhouette"])
    new, group = blobs(20, 2)
    slide = write_vectors(tmp_path / "new.npz", "new", new)
    files = {("autoencoder", reducer): model}, {("autoencoder", reducer): fits}
    assigned = assign_clusters("new", {"autoencoder": slide}, *files, tmp_path / "a.csv")
    column = f"autoencoder_{reducer}_silhouette"
    assert len(assigned) == 20 and abs(np.corrcoef(assigned[column], group)[0, 1]) > 0.9
    old = assign_clusters("ref", {"autoencoder": reference}, *files, tmp_path / "b.csv")
    assert np.array_equal(old[column][:56], np.load(fits)["labels_2"])


def test_too_few_glomeruli_to_cluster(tmp_path):
    path = write_vectors(tmp_path / "few.npz", "few", blobs(4, 0)[0])
    with pytest.raises(InputError, match="4 whole glomeruli on the 1 reference slides"):
        reduce_embeddings("pca", [path], REDUCTION["pca"], True, 0, tmp_path / "m", tmp_path / "c.npz")


def test_agreement_by_hand():
    labels = np.array([0, 0, 1, 1, 1])
    found = agreement(labels, np.array(["a", "a", "b", "b", ""]), np.array(["x", "y", "x", "y", ""]))
    assert found["ari_label"] == 1 and found["nmi_label"] == pytest.approx(1) and found["n_labelled"] == 4
    assert found["ari_site"] == pytest.approx(-0.5) and found["n_sites"] == 2


def test_choice_of_k_and_stability():
    table = pd.DataFrame({"k": [2, 3, 4], "silhouette": [0.1, 0.5, 0.2], "davies_bouldin": [3, 2, 1]})
    assert (choose_k(table, "silhouette"), choose_k(table, "davies_bouldin")) == (3, 4)
    points, which = blobs(60, 0, 2)
    assert stability(points, which, 2, 0) > 0.95
    noise = np.random.default_rng(0).normal(size=(60, 2))
    assert stability(noise, fit_kmeans(noise, 6, 0)[1], 6, 0) < 0.8
