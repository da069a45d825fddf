"""A network fine-tuned on whether a window holds a glomerulus tells so on another slide, and then embeds."""

import json

import numpy as np
import pytest
import torch

from glomerulearn.cropping import import_crops
from glomerulearn.embedding import embed_slide
from glomerulearn.errors import InputError
from glomerulearn.extractors import build_extractor
from glomerulearn.fine_tuning import fine_tune
from glomerulearn.vectors import Embeddings

CPU = torch.device("cpu")
AUGMENTATION = {
    "flip": True, "rotation": True, "scale": [0.9, 1.1], "elastic_px": 0.0, "stain": 0.0, "colour": 0.0, "blur": 0.0,
}  # fmt: skip
SETTINGS = {
    "timm": "resnet10t", "options": {}, "weights": "random", "sha256": None, "seed": 0, "size_px": 64, "window_px": 64,
    "epochs": 4, "windows_per_epoch": 96, "batch": 16, "learning_rate": 0.005, "normalise": False, "augmentation": AUGMENTATION,
}  # fmt: skip


def test_windows_with_glomeruli_are_told_from_others(small, tmp_path):
    facts = fine_tune("own", [small], [small], SETTINGS, tmp_path / "own", CPU, threads=2)
    assert facts["weights"] == "random, fine-tuned on the cohort" and facts["train"] == facts["val"] == ["small"]
    assert facts["best_epoch"]["val_balanced_accuracy"] > 0.8
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), dtype=np.uint8)
    from PIL import Image

    Image.fromarray(image[0]).save(tmp_path / "g.png")
    row = {"glomerulus": "g", "image": str(tmp_path / "g.png"), "mask": "", "label": ""}
    import_crops("own", [row], {"size_px": 64}, tmp_path / "crops.zarr.zip")
    pixels = {"stain": ["none"], "mask_background": False, "box": False}
    settings = SETTINGS | {"pixels": pixels, "orientations": 1}
    vectors = []
    for name, folder in (("tuned", tmp_path / "own"), ("raw", None)):
        embed_slide("own", tmp_path / "crops.zarr.zip", settings, folder, tmp_path / f"{name}.npz", CPU)
        vectors.append(Embeddings([tmp_path / f"{name}.npz"]))
    assert vectors[0].weights == "random, fine-tuned on the cohort" and vectors[1].weights == "random"
    assert vectors[0].vectors.shape == vectors[1].vectors.shape and not np.allclose(
        vectors[0].vectors, vectors[1].vectors
    )


def test_joined_networks_are_fine_tuned_together(small, tmp_path):
    networks = ["efficientnet_lite0", "efficientnet_lite1"]
    settings = SETTINGS | {"networks": networks, "weights": "package", "epochs": 1, "windows_per_epoch": 16}
    facts = fine_tune("efficientnet", [small], [small], settings, tmp_path / "own", CPU, threads=2)
    assert facts["weights"] == "ImageNet, fine-tuned on the cohort"
    found = build_extractor("efficientnet", settings, tmp_path / "own", CPU)
    assert found.embed(torch.zeros(1, 3, 64, 64), torch.ones(1, 64, 64)).shape == (1, 2 * 1280)


def test_slides_without_outlines_teach_nothing(small, tmp_path):
    empty = tmp_path / "none.geojson"
    truth = json.loads(small[1].read_text())
    empty.write_text(json.dumps(truth | {"features": []}))
    with pytest.raises(InputError, match="the val slides hold not one outlined glomerulus"):
        fine_tune("own", [small], [(small[0], empty)], SETTINGS, tmp_path / "own", CPU)
