"""Training: the loss by hand, both networks learn, the best epoch is kept, an interrupted run goes on."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from glomerulearn.augmentation import random_view
from glomerulearn.errors import InputError
from glomerulearn.models import load_segmenter
from glomerulearn.patches import PatchStore
from glomerulearn.sampling import RandomWindows, glomerulus_centres
from glomerulearn.training import segmentation_loss, train_segmenter

AUGMENTATION = {
    "flip": True, "rotation": True, "scale": [0.9, 1.1], "elastic_px": 1.0, "stain": 0.1, "colour": 0.1, "blur": 0.1,
}  # fmt: skip
SETTINGS = {
    "window_px": 64, "batch": 8, "epochs": 4, "windows_per_epoch": 64, "learning_rate": 0.004, "weight_decay": 0.01,
    "patience": 10, "ema": 0.9, "glomerulus_share": 0.6, "precision": "float32", "workers": 0, "seed": 0,
    "augmentation": AUGMENTATION,
}  # fmt: skip
NETWORKS = {"segnet": {"width": 0.125, "stages": 3}, "unet": {"base": 8, "depth": 3}}


def test_loss_by_hand():
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 1, 0, 0] = np.log(3.0)  # p = 0.75 where the truth is 1, 0.5 where it is 0
    labels = torch.tensor([[[1, 0]]])
    cross_entropy = -(np.log(0.75) + np.log(0.5)) / 2
    dice = (2 * 0.75 + 1) / (0.75 + 0.5 + 1 + 1)
    assert segmentation_loss(logits, labels).item() == pytest.approx(cross_entropy + 1 - dice, rel=1e-5)


@pytest.mark.parametrize("name", ["segnet", "unet"])
def test_both_networks_learn(name, small_store, tmp_path):
    settings = SETTINGS | {"network": NETWORKS[name]}
    facts = train_segmenter(name, [small_store], [small_store], settings, tmp_path)
    epochs = pd.read_csv(tmp_path / "epochs.csv")
    assert len(epochs) == 4 and epochs["train_loss"].iloc[-1] < 0.8 * epochs["train_loss"].iloc[0]
    assert facts["best_epoch"]["val_mean_iou"] == epochs["val_mean_iou"].max()
    assert json.loads((tmp_path / "model.json").read_text())["train"] == ["small"]
    assert not (tmp_path / "resume.pt").exists()
    model, _ = load_segmenter(tmp_path)
    assert not model.training and sum(p.numel() for p in model.parameters()) == facts["parameters"]


def test_interrupted_training_goes_on(small_store, tmp_path):
    settings = SETTINGS | {"network": NETWORKS["unet"]}

    class Cut(Exception):
        pass

    def until(last):
        def progress(epochs):
            for epoch in epochs:
                if epoch > last:
                    raise Cut
                yield epoch

        return progress

    with pytest.raises(Cut):
        train_segmenter("unet", [small_store], [small_store], settings, tmp_path / "cut", progress=until(2))
    assert not (tmp_path / "cut" / "model.json").exists()
    train_segmenter("unet", [small_store], [small_store], settings, tmp_path / "cut")
    train_segmenter("unet", [small_store], [small_store], settings, tmp_path / "whole")
    cut, whole = (pd.read_csv(tmp_path / run / "epochs.csv") for run in ("cut", "whole"))
    assert list(cut["epoch"]) == [1, 2, 3, 4]
    assert np.allclose(cut["train_loss"], whole["train_loss"], atol=1e-3)


def test_early_stopping(small_store, tmp_path):
    settings = SETTINGS | {"network": NETWORKS["unet"], "epochs": 30, "patience": 1, "learning_rate": 1e-9}
    train_segmenter("unet", [small_store], [small_store], settings, tmp_path)
    epochs = pd.read_csv(tmp_path / "epochs.csv")
    assert len(epochs) < 30 and len(epochs) == epochs["val_mean_iou"].idxmax() + 1 + 1


def test_no_usable_slide_is_an_error(small_store, small_slide, tmp_path):
    from conftest import OUTLINES, TILING

    from glomerulearn.tiling import tile_slide

    bare = tmp_path / "bare.zarr.zip"
    tile_slide("bare", small_slide[0], None, None, TILING, OUTLINES, bare)
    with pytest.raises(InputError, match="split `val`"):
        train_segmenter("unet", [small_store], [bare], SETTINGS | {"network": NETWORKS["unet"]}, tmp_path)


def test_windows_are_balanced_and_reproducible(small_store):
    settings = {"augmentation": AUGMENTATION, "glomerulus_share": 1.0}
    around = RandomWindows([small_store], 64, 40, settings, 0)
    anywhere = RandomWindows([small_store], 64, 40, settings | {"glomerulus_share": 0.0}, 0)
    share = [np.mean([data[i][1].any() for i in range(40)]) for data in (around, anywhere)]
    assert share[0] > 0.9 and share[1] < 0.7
    again = RandomWindows([small_store], 64, 40, settings, 0)
    assert all(np.array_equal(a, b) for a, b in zip(around[5], again[5], strict=True))
    assert len(glomerulus_centres(PatchStore(small_store))) >= 6


def test_augmentation_moves_image_and_label_together():
    """A picture whose colour is its label stays so under every geometry."""
    label = np.zeros((400, 400), np.uint8)
    label[150:260, 120:300] = 1

    def image_at(x, y, width, height):
        return np.repeat((label_at(x, y, width, height) * 200)[..., None], 3, 2)

    def label_at(x, y, width, height):
        return np.pad(label, 400)[y + 400 : y + 400 + height, x + 400 : x + 400 + width]

    settings = AUGMENTATION | {"stain": 0, "colour": 0, "blur": 0, "elastic_px": 3.0, "scale": [0.7, 1.4]}
    for seed in range(5):
        image, drawn = random_view(image_at, label_at, (200, 200), 128, settings, np.random.default_rng(seed))
        inside = image[..., 0] > 100
        inside &= image[..., 0] < 255  # white is outside the slide
        assert np.mean(inside == (drawn > 0)) > 0.98 and drawn.any()
