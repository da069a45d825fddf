"""Crops, stain, vectors, reduction and clusters: what they promise about new slides, labels, sites and weights."""

import json

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import adjusted_rand_score, roc_auc_score, silhouette_score

from glomerulearn import clusterers, reduction
from glomerulearn.agreement import add_label_agreement, agreement
from glomerulearn.assignment import assign_clusters
from glomerulearn.autoencoding import train_autoencoder
from glomerulearn.choice import choose_variant, silhouette_of_nothing
from glomerulearn.clusterers import CLUSTERERS, silhouette
from glomerulearn.clustering import (
    METRICS,
    choose_k,
    cluster_glomeruli,
    fit_kmeans,
    stability,
)
from glomerulearn.contrasting import random_views, train_contrastive
from glomerulearn.cropping import crop_glomeruli, import_crops
from glomerulearn.crops import CropStore, write_crops
from glomerulearn.embedding import embed_slide
from glomerulearn.errors import InputError
from glomerulearn.fitted import pack_fits
from glomerulearn.glomeruli import TABLE_COLUMNS
from glomerulearn.grading import add_grades, confusion, order_grades, score_grades, shares
from glomerulearn.masks import write_masks
from glomerulearn.measuring import measure_slide
from glomerulearn.models import autocast, save_model
from glomerulearn.morphology import FEATURES, axis_scale, measure, sclerosis_axis
from glomerulearn.networks.blocks import masked_mean
from glomerulearn.networks.segmenters import build_segmenter, encode
from glomerulearn.preparation import prepare, to_rgb
from glomerulearn.probing import probe
from glomerulearn.reduction import REDUCERS, reduce_embeddings
from glomerulearn.stain import TARGET_MEAN, normalise
from glomerulearn.vectors import Embeddings

CPU = torch.device("cpu")
PIXELS = {"stain": ["reinhard"], "mask_background": True, "box": True}
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


def write_vectors(path, slide, vectors, cut=None, weights="trained on the cohort"):
    n = len(vectors)
    np.savez(
        path,
        glomerulus=np.array([f"{slide}-{i}" for i in range(n)], dtype=str),
        vectors=np.asarray(vectors, np.float32),
        cut=np.zeros(n, bool) if cut is None else cut,
        facts=json.dumps({"extractor": "autoencoder", "slide": slide, "weights": weights, "scale": "kept"}),
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


def test_own_crops_come_in_with_their_mask(tmp_path):
    Image.new("RGB", (60, 40), (200, 50, 120)).save(tmp_path / "g.png")
    Image.fromarray(np.pad(np.full((20, 30), 255, np.uint8), ((10, 10), (15, 15)))).save(tmp_path / "m.png")
    rows = [
        {"glomerulus": "g1", "image": str(tmp_path / "g.png"), "mask": str(tmp_path / "m.png")},
        {"glomerulus": "g2", "image": str(tmp_path / "g.png"), "mask": ""},
    ]
    import_crops("own", rows, {"size_px": 64}, tmp_path / "c.zarr.zip")
    store = CropStore(tmp_path / "c.zarr.zip")
    assert list(store.records["glomerulus"]) == ["g1", "g2"] and store.masks[1].mean() == pytest.approx(2 / 3, abs=0.02)
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


@pytest.mark.parametrize("method", ["reinhard", "macenko", "vahadane"])
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


def test_the_same_dyes_in_another_strength_become_the_same_image():
    """Two laboratories stain one tissue: haematoxylin and eosin in known amounts, the second with dyes half as strong."""
    rng = np.random.default_rng(0)
    amounts = rng.gamma(2, 0.4, (48 * 48, 2)) * (rng.random((48 * 48, 2)) < 0.6)
    dyes = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    images = [
        np.clip(np.round(256 * np.exp(-(amounts * strength) @ dyes) - 1), 0, 255).astype(np.uint8).reshape(1, 48, 48, 3)
        for strength in ((1.0, 1.0), (0.5, 0.6))
    ]
    masks = np.ones((1, 48, 48), bool)
    before = np.abs(images[0].astype(float) - images[1]).mean()
    for method in ("macenko", "vahadane"):
        one, other = (normalise(image, masks, method).astype(float) for image in images)
        assert np.abs(one - other).mean() < 0.5 * before, method


def test_one_dye_alone_falls_back_and_says_so(caplog):
    grey = np.random.default_rng(0).integers(60, 200, (1, 48, 48, 1), dtype=np.uint8).repeat(3, -1)
    masks = np.ones((1, 48, 48), bool)
    assert np.array_equal(normalise(grey, masks, "vahadane"), normalise(grey, masks, "reinhard"))
    assert "cannot be told apart by method 'vahadane'" in caplog.text


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
    records = [{"glomerulus": f"g{i}", "cut": i == 5} for i in range(6)]
    write_crops(tmp_path / "crops.zarr.zip", "S", list(images), masks, records, {"size_px": 64})
    return tmp_path / "crops.zarr.zip"


def test_background_is_hidden_and_size_taken_out(crop_store):
    images, masks = prepare(CropStore(crop_store), PIXELS, 48, "reinhard")
    assert images.shape == (6, 3, 48, 48) and (images[:, :, masks[0] == 0] != 0).sum() < images.size
    assert np.abs(images.transpose(0, 2, 3, 1)[masks == 0]).max() == 0
    shares = masks.mean((1, 2))
    assert np.ptp(shares) < 0.08  # every glomerulus fills its box, whatever its radius
    whole, _ = prepare(CropStore(crop_store), PIXELS | {"mask_background": False, "box": False}, 64, "none")
    assert np.abs(whole[:, :, 0, 0]).min() > 0


@pytest.mark.parametrize(("name", "noise"), [("autoencoder", 0.0), ("denoising", 0.5)])
def test_autoencoders_train_and_embed(name, noise, crop_store, tmp_path):
    settings = {
        "pixels": PIXELS, "size_px": 64, "channels": [8, 16, 16], "latent": 8, "epochs": 30, "batch": 4,
        "learning_rate": 0.005, "val_share": 0.2, "noise": noise, "seed": 0,
    }  # fmt: skip
    train_autoencoder([crop_store], settings, tmp_path / "ae", CPU)
    epochs = pd.read_csv(tmp_path / "ae" / "epochs.csv")
    assert epochs["train_loss"].iloc[-1] < epochs["train_loss"].iloc[0]
    more = settings | {"orientations": 8}
    embed_slide(name, crop_store, more, tmp_path / "ae", tmp_path / "e.npz", CPU)
    embeddings = Embeddings([tmp_path / "e.npz"])
    assert embeddings.vectors.shape == (6, 8) and embeddings.weights == "trained on the cohort"
    assert list(embeddings.cut) == [False] * 5 + [True]
    with pytest.raises(InputError, match="too few"):
        write_crops(tmp_path / "none.zarr.zip", "N", [], [], [], {"size_px": 64})
        train_autoencoder([tmp_path / "none.zarr.zip"], settings, tmp_path / "no", CPU)


def test_segmenters_encoder_embeds(crop_store, tmp_path):
    network = {"encoder": "efficientnet_lite0", "weights": "package"}
    model = build_segmenter("unet", network).eval()
    save_model(
        tmp_path / "best",
        model.state_dict(),
        {"segmenter": "unet", "network": network, "classes": ["glomerulus"]},
        [{"epoch": 1}],
    )
    settings = {"pixels": PIXELS, "orientations": 1, "size_px": 64, "batch": 4, "seed": 0}
    embed_slide("segmenter", crop_store, settings, tmp_path / "best", tmp_path / "e.npz", CPU)
    found = Embeddings([tmp_path / "e.npz"])
    assert found.vectors.shape == (6, 320) and found.weights == "those of the unet segmenter"
    # what the segmenter sees of the glomerulus, from -1 to 1 as in training
    images, masks = map(torch.from_numpy, prepare(CropStore(crop_store), PIXELS, 64, "reinhard"))
    with torch.no_grad(), autocast("auto", CPU):
        features = encode(model, to_rgb(images) * 2 - 1)
    assert np.allclose(found.vectors, masked_mean(features.float(), masks).numpy(), atol=0.2)


def test_contrastive_encoder_trains_and_embeds(crop_store, tmp_path):
    settings = {
        "pixels": PIXELS | {"stain": ["reinhard", "macenko"]}, "size_px": 32, "channels": [8, 16, 16], "projection": 8,
        "epochs": 40, "batch": 6, "learning_rate": 0.01, "temperature": 0.2, "seed": 0,
        "views": {"scale": [0.7, 1.0], "shift": 0.1, "stain": 0.1, "colour": 0.1, "blur": 0.3},
    }  # fmt: skip
    facts = train_contrastive([crop_store], settings, tmp_path / "c", CPU)
    epochs = pd.read_csv(tmp_path / "c" / "epochs.csv")
    assert epochs["train_loss"].tail(5).mean() < epochs["train_loss"].head(5).mean() and facts["n"] == 6
    embed_slide("contrastive", crop_store, settings | {"orientations": 1}, tmp_path / "c", tmp_path / "e.npz", CPU)
    embeddings = Embeddings([tmp_path / "e.npz"])
    assert embeddings.vectors.shape == (6, 16) and embeddings.weights == "trained on the cohort"


def test_views_change_everything_but_the_glomerulus(crop_store):
    images, masks = map(torch.from_numpy, prepare(CropStore(crop_store), PIXELS, 64, "none"))
    still = {"scale": [1.0, 1.0], "shift": 0.0, "stain": 0.0, "colour": 0.0, "blur": 0.0}
    turned, _ = random_views(images, masks, still, np.random.default_rng(0))
    # a turn keeps what there is of each colour; the corners of the box, which a turn may lose, are background
    assert (turned - images).abs().mean() > 0.1
    assert torch.allclose(turned.sum((2, 3)), (images * masks[:, None]).sum((2, 3)), rtol=0.15, atol=30)
    restained, _ = random_views(images, masks, still | {"stain": 0.5, "colour": 0.3}, np.random.default_rng(0))
    means = (restained - turned).sum((2, 3)).abs() / masks.sum((1, 2))[:, None]
    assert (means.max(1).values > 0.05).all()
    assert (restained[:, :, 0, 0] == 0).all()  # the background stays hidden


@pytest.mark.parametrize(("extractor", "length"), [("vgg19", 512), ("resnet50", 2048)])
def test_random_weights_are_seeded_and_say_so(extractor, length, crop_store, tmp_path, caplog):
    for name in "ab":
        embed_slide(extractor, crop_store, RANDOM, None, tmp_path / f"{name}.npz", CPU)
    first, second = (Embeddings([tmp_path / f"{name}.npz"]) for name in "ab")
    assert first.vectors.shape == (6, length) and np.array_equal(first.vectors, second.vectors)
    assert first.weights == "random" and "RANDOM" in caplog.text


def test_efficientnet_is_several_networks_side_by_side(crop_store, tmp_path):
    vectors = []
    for networks in (["efficientnet_lite0"], ["efficientnet_lite2"], ["efficientnet_lite0", "efficientnet_lite2"]):
        settings = RANDOM | {"networks": networks, "weights": "package"}
        embed_slide("efficientnet", crop_store, settings, None, tmp_path / "e.npz", CPU)
        found = Embeddings([tmp_path / "e.npz"])
        assert found.weights == "ImageNet"
        vectors.append(found.vectors)
    assert np.allclose(np.hstack(vectors[:2]), vectors[2], atol=1e-4)
    assert not np.allclose(vectors[0], vectors[1], atol=0.1)


def test_any_network_of_timm_with_a_file_of_weights(crop_store, tmp_path):
    """A vision transformer, as pathology foundation models are: one entry in config and its weights."""
    options = {"img_size": 32, "num_classes": 0, "depth": 2}
    state = timm.create_model("vit_tiny_patch16_224", **options).state_dict()
    save_file(state, tmp_path / "uni.safetensors")
    settings = RANDOM | {
        "timm": "vit_tiny_patch16_224",
        "options": options,
        "weights": str(tmp_path / "uni.safetensors"),
    }
    embed_slide("uni", crop_store, settings, None, tmp_path / "u.npz", CPU)
    found = Embeddings([tmp_path / "u.npz"])
    assert found.vectors.shape == (6, 192) and found.weights.endswith("uni.safetensors")
    model = timm.create_model("vit_tiny_patch16_224", **options).eval()
    model.load_state_dict(state)
    images, _ = prepare(CropStore(crop_store), PIXELS, 32, "reinhard")
    with torch.no_grad():
        assert np.allclose(found.vectors, model(torch.from_numpy(images)).numpy(), atol=0.1)
    with pytest.raises(InputError, match="nosuch"):
        embed_slide("uni", crop_store, settings | {"timm": "nosuch"}, None, tmp_path / "u.npz", CPU)
    del state["blocks.0.attn.qkv.weight"]
    save_file(state, tmp_path / "uni.safetensors")
    with pytest.raises(InputError, match=r"lack 1 tensors.*qkv"):
        embed_slide("uni", crop_store, settings, None, tmp_path / "u.npz", CPU)


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
    reference = write_vectors(tmp_path / "ref.npz", "ref", vectors, np.arange(60) >= 56)
    labels = {f"ref-{i}": names[w] for i, w in enumerate(which)}
    model, coordinates = tmp_path / "m.joblib", tmp_path / "c.npz"
    reduce_embeddings(reducer, [reference], REDUCTION[reducer], True, "none", {}, 0, model, coordinates)
    again = tmp_path / "again.npz"
    reduce_embeddings(reducer, [reference], REDUCTION[reducer], True, "none", {}, 0, tmp_path / "m2.joblib", again)
    assert np.array_equal(np.load(coordinates)["coordinates"], np.load(again)["coordinates"])
    assert len(np.load(coordinates)["glomerulus"]) == 56  # cut ones are not fitted on
    fits, k_scores, variants = (tmp_path / name for name in ("f.npz", "k.tsv", "v.tsv"))
    settings = {"k_range": [2, 5], "metrics": list(METRICS), "clusterers": ["kmeans", *CLUSTERERS]}
    cluster_glomeruli("autoencoder", reducer, coordinates, {"ref": "lab"}, settings, 0, fits, k_scores, variants)
    table = add_label_agreement(pd.read_csv(variants, sep="\t"), {("autoencoder", reducer): fits}, labels)
    assert (table["n_labelled"] == 56).all()
    table = table.set_index("method")
    row = table.loc["silhouette"]
    assert row["k"] == 2 and row["ari_label"] > 0.9 and row["n"] == 56 and row["stability"] > 0.9
    assert np.isnan(row["ari_site"])  # one site agrees with nothing
    assert row["silhouette"] == pytest.approx(pd.read_csv(k_scores, sep="\t").set_index("k").loc[2, "silhouette"])
    assert row["separation"] > 1.5  # more than one cloud without clusters would give
    assert (table.loc[list(CLUSTERERS), "ari_label"] > 0.7).all()
    new, group = blobs(20, 2)
    slide = write_vectors(tmp_path / "new.npz", "new", new)
    fitted = tmp_path / "fitted.zip"
    pack_fits({("autoencoder", reducer): model}, {("autoencoder", reducer): fits}, [], fitted)
    assigned = assign_clusters("new", "", {"autoencoder": slide}, fitted, tmp_path / "a.csv")
    old = assign_clusters("ref", "", {"autoencoder": reference}, fitted, tmp_path / "b.csv")
    for method in ("silhouette", *CLUSTERERS):
        column = f"autoencoder_{reducer}_{method}"
        assert len(assigned) == 20 and abs(np.corrcoef(assigned[column], group)[0, 1]) > 0.9
        assert np.array_equal(old[column][:56], np.load(fits)[f"labels_{method}"])


def test_what_is_compiled_of_umap_is_kept():
    from umap import umap_, utils

    reduction.make_reducer("umap", 100, 60, {"components": 2, "neighbours": 15}, 0, "kept")
    for function in (utils.fast_knn_indices, umap_.smooth_knn_dist, utils.submatrix):
        assert function.stats.cache_path is not None, function


@pytest.mark.parametrize("reducer", ["isomap", "tsne"])
def test_large_cohorts_are_fitted_by_sample_or_approximation(reducer, tmp_path, monkeypatch):
    vectors = blobs(200, 1, 6)[0]
    vectors[:, 0] += np.linspace(-12, 12, 200)  # one connected cloud
    path = write_vectors(tmp_path / "ref.npz", "ref", vectors)
    places = []
    for limit in (1000, 120):
        monkeypatch.setattr(reduction, "EXACT", limit)
        reduce_embeddings(reducer, [path], REDUCTION[reducer], True, "none", {}, 0, tmp_path / "m", tmp_path / "c.npz")
        places.append(np.load(tmp_path / "c.npz")["coordinates"])
    whole, sampled = (fit_kmeans(place.astype(float), 2, 0)[1] for place in places)
    assert len(places[1]) == 200 and adjusted_rand_score(whole, sampled) > 0.8


def test_silhouette_of_a_sample_is_near_the_whole(monkeypatch):
    points, which = blobs(3000, 0, 4)
    exact = silhouette_score(points, which)
    assert silhouette(points, which, 0) == pytest.approx(exact)
    monkeypatch.setattr(clusterers, "LARGEST", 500)
    assert silhouette(points, which, 0) == pytest.approx(exact, abs=0.02)
    assert silhouette(points, np.zeros(3000, int), 0) == -1


def test_too_few_glomeruli_to_cluster(tmp_path):
    path = write_vectors(tmp_path / "few.npz", "few", blobs(4, 0)[0])
    with pytest.raises(InputError, match="4 whole glomeruli on the 1 reference slides"):
        reduce_embeddings("pca", [path], REDUCTION["pca"], True, "none", {}, 0, tmp_path / "m", tmp_path / "c.npz")


def test_agreement_by_hand():
    labels = np.array([0, 0, 1, 1, 1])
    found = agreement(labels, np.array(["a", "a", "b", "b", ""]), "label")
    assert found["ari_label"] == 1 and found["nmi_label"] == pytest.approx(1)
    assert agreement(labels, np.array(["x", "y", "x", "y", ""]), "site")["ari_site"] == pytest.approx(-0.5)
    assert np.isnan(agreement(labels, np.array(["x", "x", "", "", ""]), "site")["ari_site"])


def test_choice_of_k_and_stability():
    table = pd.DataFrame({"k": [2, 3, 4], "silhouette": [0.1, 0.5, 0.2], "davies_bouldin": [3, 2, 1]})
    assert (choose_k(table, "silhouette"), choose_k(table, "davies_bouldin")) == (3, 4)
    points, which = blobs(60, 0, 2)

    def again(k):
        return lambda sample: fit_kmeans(sample, k, 0)[::-1]

    assert stability(points, which, again(2), 0) > 0.95
    noise = np.random.default_rng(0).normal(size=(60, 2))
    assert stability(noise, fit_kmeans(noise, 6, 0)[1], again(6), 0) < 0.8
    assert np.isnan(stability(noise, np.zeros(60, int), again(1), 0))


def test_one_cloud_has_no_separation():
    """Clusters of a single elongated cloud are as silhouetted as the null says, those of two clouds far more."""
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(300, 6)) * [5, 2, 1, 1, 1, 1]
    two = np.concatenate([cloud[:150] * 0.4, cloud[150:] * 0.4 + [0, 0, 9, 0, 0, 0]])
    ratios = [silhouette_score(x, fit_kmeans(x, 2, 0)[1]) / silhouette_of_nothing(x, 2, 0) for x in (cloud, two)]
    assert ratios[0] == pytest.approx(1, abs=0.1) and ratios[1] > 1.5


def test_variant_is_chosen_without_labels():
    table = pd.DataFrame(
        {
            "extractor": ["a", "b", "c", "d"],
            "stability": [0.9, 1.0, 0.9, 1.0],
            "separation": [1.6, 1.7, 1.2, 3.0],
            "ari_site": [0.0, 0.5, np.nan, 0.0],
            "ari_label": [0.1, 0.2, 0.9, 0.3],
            "weights": ["ImageNet", "ImageNet", "trained on the cohort", "random"],
        }
    )
    chosen = choose_variant(table).set_index("extractor")
    assert chosen.loc["a", "merit"] == pytest.approx(0.9 * 1.6) and chosen.loc["b", "merit"] == pytest.approx(0.85)
    assert chosen["chosen"].to_dict() == {"d": "", "a": "without labels", "c": "with labels", "b": ""}
    only = choose_variant(table.query("weights == 'random'").drop(columns="chosen", errors="ignore"))
    assert only["chosen"].tolist() == ["without labels, with labels"]


def test_sclerosis_axis_follows_the_pathologist(shared):
    """Measures alone, no training: the labels of three laboratories, within each of them."""
    folder = shared / "glomeruli-crops"
    table = pd.read_csv(folder / "labels.tsv", sep="\t")
    images = [np.asarray(Image.open(folder / "crops" / f"{n}.png").convert("RGB")) for n in table["glomerulus"]]
    masks = [np.asarray(Image.open(folder / "masks" / f"{n}.png").convert("L")) > 127 for n in table["glomerulus"]]
    features = measure(np.stack(images), np.stack(masks))
    for _, rows in table.groupby("site").indices.items():
        axis = sclerosis_axis(features[rows], axis_scale(features[rows]))
        assert roc_auc_score(table["label"][rows] == "sclerosed", axis) > 0.9


def test_slides_are_measured(crop_store, tmp_path):
    measure_slide(crop_store, PIXELS, tmp_path / "m.npz")
    measured = Embeddings([tmp_path / "m.npz"])
    assert measured.vectors.shape == (6, len(FEATURES)) and (measured.weights, measured.scale) == (
        "measured",
        "standard",
    )
    write_crops(tmp_path / "none.zarr.zip", "N", [], [], [], {"size_px": 64})
    measure_slide(tmp_path / "none.zarr.zip", PIXELS, tmp_path / "n.npz")
    assert len(Embeddings([tmp_path / "n.npz", tmp_path / "m.npz"])) == 6


def test_measures_by_hand():
    image = np.full((64, 64, 3), 200, np.uint8)
    mask = np.hypot(*(np.mgrid[:64, :64] - 32)) < 24
    flat = dict(zip(FEATURES, measure(image[None], mask[None])[0], strict=True))
    assert flat["contrast"] == pytest.approx(0, abs=1e-3) and flat["edges"] == pytest.approx(0, abs=1e-3)
    assert flat["solidity"] > 0.95 and flat["circularity"] > 0.85 and flat["redness"] == pytest.approx(0, abs=0.1)
    image[:, ::8] = 40
    striped = dict(zip(FEATURES, measure(image[None], mask[None])[0], strict=True))
    assert striped["contrast"] > 10 and striped["edges"] > 1
    scale = axis_scale(np.array([list(flat.values()), list(striped.values())]))
    low, high = (sclerosis_axis(np.array([list(each.values())]), scale)[0] for each in (striped, flat))
    assert low < high
    # pale at the border and red inside: Bowman's space and matrix
    tuft, radius = np.full((224, 224, 3), (190, 60, 150), np.uint8), np.hypot(*(np.mgrid[:224, :224] - 112))
    tuft[radius > 75] = 240
    found = dict(zip(FEATURES, measure(tuft[None], (radius < 100)[None])[0], strict=True))
    assert found["space_share"] > 0.8 and flat["pas_share"] == 0
    assert found["pale_share"] == pytest.approx(0.42, abs=0.05) and found["pas_share"] == pytest.approx(0.58, abs=0.05)
    assert measure(image[None], np.zeros((1, 64, 64))).tolist() == [[0.0] * len(FEATURES)]


@pytest.fixture
def graded(tmp_path):
    """40 glomeruli whose cluster 1 is the open one, with their measures."""
    rng = np.random.default_rng(0)
    names = np.array([f"S-{i}" for i in range(40)])
    clusters = np.repeat([0, 1], 20)
    np.savez(tmp_path / "fit.npz", glomerulus=names, labels_silhouette=clusters)
    features = rng.normal(5, 0.5, (40, len(FEATURES))) + 5 * clusters[:, None]
    write_vectors(tmp_path / "S.npz", "S", features)
    variants = pd.DataFrame(
        {"extractor": "vgg19", "reducer": "pca", "method": ["silhouette"], "chosen": ["without labels, with labels"]}
    )
    order_grades(variants, {("vgg19", "pca"): tmp_path / "fit.npz"}, [tmp_path / "S.npz"], tmp_path / "g.json")
    return clusters, json.loads((tmp_path / "g.json").read_text()), tmp_path / "S.npz"


def test_grades_rise_with_the_sclerosis_axis(graded):
    clusters, facts, morphology = graded
    assert facts["grades"] == [1, 0] and facts["axis"][0] < facts["axis"][1]
    table = pd.DataFrame({"slide": "S", "glomerulus": [f"S-{i}" for i in range(40)], "vgg19_pca_silhouette": clusters})
    table["circularity"] = 0.9  # as measured on the slide
    done = add_grades(
        pd.concat([table, table.head(1).assign(glomerulus="lost", vgg19_pca_silhouette=None)]), [morphology], facts
    )
    assert done["grade"].tolist()[:40] == (1 - clusters).tolist() and done["grade"].isna().tolist()[-1]
    assert np.corrcoef(done["sclerosis_axis"][:40].astype(float), clusters)[0, 1] < -0.9
    assert set(FEATURES) <= set(done.columns) and (done["circularity"] == 0.9).all()


def test_grades_against_labels_by_hand():
    table = pd.DataFrame(
        {
            "slide": ["A"] * 4 + ["B"] * 4,
            "glomerulus": list("abcdefgh"),
            "label": ["normal", "normal", "sclerosed", "sclerosed"] * 2,
            "grade": [0, 0, 1, 1, 0, 1, 1, None],
            "sclerosis_axis": [-1, -0.5, 1, 2, -1, 0, 1, None],
            "cut": [False] * 8,
        }
    )
    scores = score_grades(table, {"A": "lab"}, ["normal", "sclerosed"]).set_index(["of", "name"])
    assert scores.loc[("slide", "A"), "ari"] == 1 and scores.loc[("slide", "A"), "kappa"] == 1
    everything = scores.loc[("all", "")]
    assert everything["n"] == 7 and everything["balanced_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert everything["axis_auc"] == 1 and everything["ari_low"] <= everything["ari"] <= everything["ari_high"]
    assert ("site", "lab") in scores.index and ("site", "") not in scores.index
    counts = confusion(table, {"A": "lab", "B": "lab"}).set_index(["label", "grade"])["n"]
    assert counts.to_dict() == {("normal", 0): 3, ("normal", 1): 1, ("sclerosed", 1): 3}
    per_slide = shares(table, {"A": "A", "B": "B"}).set_index("group")
    assert per_slide.loc["B", "n"] == 3 and per_slide.loc["B", "share_1"] == pytest.approx(2 / 3)
    assert per_slide.loc["A", "low_1"] < 0.5 < per_slide.loc["A", "high_1"]
    unlabelled = score_grades(table.assign(label=""), {}, [])
    assert unlabelled["n"].tolist() == [0] and shares(table.assign(grade=None), {"A": "A"}).columns.tolist() == [
        "group",
        "n",
    ]


def test_probes_tell_label_and_site_on_other_slides(tmp_path):
    """Feature 0 is the label, feature 1 the site, and the rest noise."""
    rng = np.random.default_rng(0)
    paths, sites = [], {}
    for number in range(6):
        sites[f"S{number}"] = "AB"[number % 2]
        which = np.arange(20) % 2
        vectors = rng.normal(0, 1, (20, 8))
        vectors[:, 0] += 6 * which
        vectors[:, 1] += 6 * (number % 2)
        paths.append(write_vectors(tmp_path / f"{number}.npz", f"S{number}", vectors))
    labels = {f"S{number}-{i}": ["normal", "sclerosed"][i % 2] for number in range(6) for i in range(20)}
    table = probe("vgg19", paths, labels, sites, [1, 5], 0).set_index(["of", "examples"])
    assert table.loc[("label", "all"), "balanced_accuracy"] > 0.95 and table.loc[("label", "all"), "chance"] == 0.5
    assert table.loc[("site", "all"), "balanced_accuracy"] > 0.95
    data = np.concatenate([np.load(path)["vectors"] for path in paths])
    which, site = np.tile(np.arange(20) % 2, 6), np.repeat(np.arange(6) % 2, 20)
    for of, groups in (("label", which), ("site", site)):
        assert table.loc[(of, "all"), "silhouette"] == pytest.approx(silhouette_score(data, groups), abs=1e-5)
        assert table.loc[(of, "all"), "silhouette"] > 0.2
    few = table.loc["label", "balanced_accuracy"]
    assert 0.5 < few[1] < few[5] <= few["all"] + 0.05
    noise = [write_vectors(tmp_path / f"n{i}.npz", f"S{i}", rng.normal(size=(20, 8))) for i in range(6)]
    alone = probe("vgg19", noise, labels, dict.fromkeys(sites, "A"), [], 0).set_index("of")
    assert alone.index.tolist() == ["label"] and abs(alone.loc["label", "balanced_accuracy"] - 0.5) < 0.2
    assert abs(alone.loc["label", "silhouette"]) < 0.05
