"""Training: the loss by hand, both networks learn, the best epoch is kept, an interrupted run goes on."""

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import OUTLINES
from safetensors.torch import load_file
from scipy.ndimage import binary_dilation
from skimage.segmentation import find_boundaries

from glomerulearn import resuming, training
from glomerulearn.augmentation import paste_glomerulus, random_view
from glomerulearn.errors import InputError
from glomerulearn.inference import predict
from glomerulearn.losses import boundary_loss, deep_loss, glomerulus_weights, segmentation_loss
from glomerulearn.models import load_segmenter
from glomerulearn.multi_gpu import run_together
from glomerulearn.patches import PatchStore
from glomerulearn.resuming import work_digest
from glomerulearn.running import logged
from glomerulearn.sampling import EpochSampler, RandomWindows, glomerulus_centres
from glomerulearn.slide_outlines import read_slide_outlines
from glomerulearn.training import train_segmenter

AUGMENTATION = {
    "flip": True, "rotation": True, "scale": [0.9, 1.1], "elastic_px": 1.0, "stain": 0.1, "colour": 0.1, "blur": 0.1,
}  # fmt: skip
SETTINGS = {
    "window_px": 64, "batch": 8, "epochs": 4, "windows_per_epoch": 64, "learning_rate": 0.004, "weight_decay": 0.01,
    "patience": 10, "ema": 0.9, "glomerulus_share": 0.6, "class_balance": 0.5, "paste": 0.5, "normalise": False,
    "same_size": True, "tell_labels": False, "compile": False, "precision": "float32", "workers": 0, "seed": 0,
    "augmentation": AUGMENTATION,
}  # fmt: skip
NETWORKS = {"segnet": {"width": 0.125, "stages": 3, "deep_supervision": True}, "unet": {"base": 8, "depth": 3}}


def test_loss_by_hand():
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 1, 0, 0] = np.log(3.0)  # p = 0.75 where the truth is 1, 0.5 where it is 0
    labels = torch.tensor([[[1, 0]]])
    cross_entropy = -(np.log(0.75) + np.log(0.5)) / 2
    dice = (2 * 0.75 + 1) / (0.75 + 0.5 + 1 + 1)
    assert segmentation_loss(logits, labels).item() == pytest.approx(cross_entropy + 1 - dice, rel=1e-5)


def test_deeper_outputs_count_half():
    """What a layer at a quarter of the size says is judged by the label in the middle of each of its pixels."""
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[0, 1:3, 1:3] = 1  # the middle of the first pixel, not its corner
    output, side = torch.randn(1, 2, 8, 8), torch.randn(1, 2, 2, 2)
    own = segmentation_loss(output, labels)
    coarse = torch.tensor([[[1, 0], [0, 0]]])
    expected = own + 0.5 * boundary_loss(output, labels) + 0.5 * segmentation_loss(side, coarse)
    alike = torch.ones(1, 8, 8)
    loss, reported = deep_loss([output, side], labels, alike)
    assert loss.item() == pytest.approx(expected.item()) and reported.item() == pytest.approx(own.item())
    alone = own + 0.5 * boundary_loss(output, labels)
    assert deep_loss(output, labels, alike)[0].item() == pytest.approx(alone.item())


def test_small_glomeruli_count_as_much_as_large_ones():
    """Nothing found anywhere: the share of the cross-entropy that each glomerulus has is the same, of 100 and of 36 pixels."""
    labels = np.zeros((2, 32, 32), np.int64)
    labels[0, 2:12, 2:12] = 1
    labels[0, 20:26, 20:26] = 2  # another label
    labels[1, 4:14, 4:14] = 1
    labels[1, 31, 31] = 1  # a sliver at the edge does not count without limit
    weights = glomerulus_weights(labels)
    assert weights.dtype == np.float32 and (weights[labels == 0] == 1).all() and weights[1, 31, 31] == 4
    large, small, other = weights[0, 2:12, 2:12], weights[0, 20:26, 20:26], weights[1, 4:14, 4:14]
    assert large.sum() == pytest.approx(small.sum(), rel=1e-5) == pytest.approx(other.sum(), rel=1e-5)
    assert large.sum() == pytest.approx((100 + 36 + 100 + 1) / 4, rel=1e-5)
    assert (glomerulus_weights(np.zeros_like(labels)) == 1).all()

    logits = torch.zeros(2, 3, 32, 32)
    logits[:, 0] = 5  # background everywhere
    truth, weights = torch.from_numpy(labels), torch.from_numpy(weights)
    loss, reported = deep_loss(logits, truth, weights)
    assert reported.item() == pytest.approx(segmentation_loss(logits, truth).item())  # as if unweighed
    errors = torch.nn.functional.cross_entropy(logits, truth, reduction="none")
    difference = (errors * weights).sum() / weights.sum() - errors.mean()
    unweighed = deep_loss(logits, truth, torch.ones(2, 32, 32))[0]
    assert (loss - unweighed).item() == pytest.approx(difference.item(), rel=1e-4)


@pytest.mark.parametrize("shift_px", [0, 1, 3, 20])
def test_boundary_loss_is_that_of_a_peers_boundaries(shift_px):
    """Masks that are sure of themselves: the F1 of boundaries as scikit-image draws them, up to 2 px apart."""
    truth, found = np.zeros((2, 48, 48), bool)
    truth[10:22, 8:20] = True
    found[10:22, 8 + shift_px : 20 + shift_px] = True
    edges = [find_boundaries(mask, mode="inner") for mask in (found, truth)]
    near = [binary_dilation(edge, np.ones((5, 5))) for edge in edges]
    precision = (edges[0] & near[1]).sum() / (edges[0].sum() + 1)
    recall = (edges[1] & near[0]).sum() / (edges[1].sum() + 1)
    logits = torch.from_numpy(np.stack([~found, found])[None] * 100.0).float()
    loss = boundary_loss(logits, torch.from_numpy(truth[None].astype(np.int64))).item()
    assert loss == pytest.approx(1 - 2 * precision * recall / (precision + recall + 1e-6), abs=1e-5)
    assert loss < 0.04 if shift_px < 2 else loss > 0.2


@pytest.mark.parametrize("name", ["segnet", "unet"])
def test_both_networks_learn(name, small, tmp_path):
    settings = SETTINGS | {"network": NETWORKS[name]}
    facts = train_segmenter(name, [small], [small], settings, tmp_path)
    epochs = pd.read_csv(tmp_path / "epochs.csv")
    assert len(epochs) == 4 and epochs["train_loss"].iloc[-1] < 0.8 * epochs["train_loss"].iloc[0]
    assert facts["best_epoch"]["val_mean_iou"] == epochs["val_mean_iou"].max()
    assert json.loads((tmp_path / "model.json").read_text())["train"] == ["small"]
    assert not (tmp_path / "resume.pt").exists()
    model, _ = load_segmenter(tmp_path)
    assert not model.training and sum(p.numel() for p in model.parameters()) == facts["parameters"]


def test_labels_as_classes(small, tmp_path):
    """The network tells them apart; what is asked of it, glomerulus or not, stays the same."""
    settings = SETTINGS | {"network": NETWORKS["unet"], "tell_labels": True}
    facts = train_segmenter("unet", [small], [small], settings, tmp_path)
    assert facts["classes"] == PatchStore(*small).labels and len(facts["classes"]) == 4
    model, _ = load_segmenter(tmp_path)
    window = torch.zeros(1, 3, 64, 64)
    assert model(window).shape == (1, 5, 64, 64)
    probability = predict(model, window, flips=True)
    assert probability.shape == (1, 64, 64) and probability.min() >= 0 and probability.max() <= 1
    assert facts["best_epoch"]["val_dice"] > 0.2


def test_rare_labels_are_seen_as_often(small):
    """Of labels that 1 and 5 glomeruli have, each is in half of the balanced windows."""
    settings = {
        "augmentation": AUGMENTATION,
        "glomerulus_share": 1.0,
        "class_balance": 1.0,
        "paste": 0.0,
        "normalise": False,
        "same_size": False,
    }
    data = RandomWindows([small], 64, 200, settings, 0)
    data.by_label = [[(0, 0)], [(0, number) for number in range(1, 6)]]
    rng = np.random.default_rng(0)
    first = data.glomeruli[0][0]
    near = [np.abs(data._place(rng)[1] - first).max() < 0.4 * 64 for _ in range(200)]
    assert 0.4 < np.mean(near) < 0.65


def test_a_pasted_glomerulus_takes_on_the_windows_colours():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 8, (128, 128, 3))
    pink, blue = (
        np.clip(c + noise, 0, 255).astype(np.uint8) for c in (np.array((220, 150, 190)), np.array((150, 160, 210)))
    )
    label = np.zeros((128, 128), np.uint8)
    label[50:80, 50:80] = 2
    donor = blue.copy()
    donor[label > 0] = (donor[label > 0] * 0.7).astype(np.uint8)  # a darker thing
    empty = np.zeros_like(label)
    pasted = 0
    for _ in range(10):
        image, drawn = paste_glomerulus(pink, empty, donor, label, rng)
        if drawn.any():
            pasted += 1
            assert set(np.unique(drawn)) == {0, 2}
            far = cv2.dilate((drawn > 0).astype(np.uint8), np.ones((25, 25))) == 0
            assert np.array_equal(image[far], pink[far])
            inside, outside = image[drawn > 0].mean(axis=0), pink.mean(axis=0)
            assert (inside < outside - 15).all() and inside[0] > inside[1]  # darker, and pink
    assert pasted > 3
    # never onto another glomerulus, nor onto glass
    occupied = np.ones_like(label)
    assert paste_glomerulus(pink, occupied, donor, label, rng)[1] is occupied
    glass = np.full_like(pink, 245)
    assert paste_glomerulus(glass, empty, donor, label, rng)[0] is glass


def test_killed_training_goes_on_as_if_nothing_had_been(small, tmp_path):
    """SIGKILL in the third epoch: the first two are not computed again, and the weights are those of an undisturbed run."""
    settings = SETTINGS | {"network": NETWORKS["unet"], "epochs": 5}
    code = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from glomerulearn.training import train_segmenter; slides = [(Path(sys.argv[2]), Path(sys.argv[3]))];"
        "train_segmenter('unet', slides, slides, json.loads(sys.argv[4]), Path(sys.argv[5]), progress=lambda e: slow(e))"
    )
    slow = (
        "import time\ndef slow(epochs):\n    for epoch in epochs:\n"
        "        if epoch == 3:\n            print('third', flush=True); time.sleep(60)\n        yield epoch\n"
    )
    scripts = Path(training.__file__).parents[1]
    command = [
        sys.executable,
        "-c",
        slow + code,
        str(scripts),
        *map(str, small),
        json.dumps(settings),
        str(tmp_path / "cut"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "third\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "cut" / "model.json").exists()
    asked = []
    train_segmenter(
        "unet",
        [small],
        [small],
        settings,
        tmp_path / "cut",
        progress=lambda epochs: asked.extend(epochs) or asked,
    )
    assert asked == [3, 4, 5]
    train_segmenter("unet", [small], [small], settings, tmp_path / "whole")
    cut, whole = (pd.read_csv(tmp_path / run / "epochs.csv") for run in ("cut", "whole"))
    assert list(cut["epoch"]) == [1, 2, 3, 4, 5]
    assert np.allclose(cut["train_loss"], whole["train_loss"], atol=1e-5)
    cut, whole = (load_file(tmp_path / run / "model.safetensors") for run in ("cut", "whole"))
    assert all(torch.allclose(cut[key], whole[key], atol=1e-5) for key in whole)


def test_the_same_seed_gives_the_same_file(small, tmp_path):
    settings = SETTINGS | {"network": NETWORKS["unet"], "epochs": 2}
    for run, seed in (("one", 0), ("two", 0), ("other", 1)):
        train_segmenter("unet", [small], [small], settings | {"seed": seed}, tmp_path / run)
    one, two, other = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("one", "two", "other"))
    assert one == two != other


def test_two_processes_train_one_network(small, tmp_path):
    """As on two GPUs, but on the CPU: each has its share of the windows, and what is written is one network that learned."""
    settings = SETTINGS | {"network": NETWORKS["unet"], "epochs": 3}
    task = {
        "name": "unet", "train": [small], "val": [small], "settings": settings, "folder": tmp_path,
        "threads": 1, "licence": "CC0",
    }  # fmt: skip
    run_together(2, train_segmenter, task, backend="gloo", log_file=str(tmp_path / "log"))
    epochs = pd.read_csv(tmp_path / "epochs.csv")
    assert len(epochs) == 3 and epochs["train_loss"].iloc[-1] < 0.9 * epochs["train_loss"].iloc[0]
    assert json.loads((tmp_path / "model.json").read_text())["licence"] == "CC0"
    assert (tmp_path / "log").read_text().count("epoch 3 of 3") == 1
    shares = [set(EpochSampler(9, rank, 2)) for rank in (0, 1)]
    assert shares == [{0, 2, 4, 6}, {1, 3, 5, 7}]


def fail_in_the_first_process(device):
    if torch.distributed.get_rank() == 0:
        logging.getLogger().warning("a slide is left out")
        raise InputError("no usable slide: see the log")


def test_what_stops_processes_together_is_said_once_and_keeps_their_log(tmp_path):
    """The first process's log is kept, and the error is the user's, not the launcher's."""
    log = tmp_path / "log"
    with pytest.raises(SystemExit, match="Error: no usable slide: see the log"), logged(str(log)):
        run_together(2, fail_in_the_first_process, {}, backend="gloo", log_file=str(log))
    said = log.read_text()
    assert said.count("a slide is left out") == 1 and said.count("ERROR") == 1 and "Traceback" not in said


def test_slides_to_watch_must_show_a_glomerulus(small, small_slide, tmp_path):
    """On val slides without any a network that finds nothing would be the best."""
    empty = tmp_path / "empty.geojson"
    empty.write_text('{"type": "FeatureCollection", "features": []}')
    read_slide_outlines("small", small_slide[0], empty, None, OUTLINES, tmp_path / "read.geojson")
    with pytest.raises(InputError, match="the val slides hold not one outlined glomerulus"):
        train_segmenter(
            "unet", [small], [(small[0], tmp_path / "read.geojson")], SETTINGS | {"network": NETWORKS["unet"]}, tmp_path
        )


def test_another_number_of_processes_starts_afresh(small, monkeypatch):
    """An epoch has other steps then, and its learning rates would not fit."""
    training_script = Path(training.__file__)
    alone = work_digest(["unet"], [small[0]], training_script)
    assert alone == work_digest(["unet"], [small[0]], training_script)
    assert alone != work_digest(["unet"], [small[0]], training_script.with_name("second_look_training.py"))
    monkeypatch.setattr(resuming, "place", lambda: (0, 2))
    assert alone != work_digest(["unet"], [small[0]], training_script)


def test_a_last_batch_of_one_window_is_left_out(small):
    """DeepLabV3+ normalises over whole windows, and one alone has no spread."""
    network = {"encoder": "resnet18"}
    settings = SETTINGS | {"network": network, "batch": 2, "windows_per_epoch": 3, "epochs": 1}
    trainer = training.segmenter_trainer("deeplabv3plus", [small], settings, torch.device("cpu"))
    assert len(trainer.loader) == 1 and np.isfinite(trainer.run_epoch(1))


def test_compiled_on_request(small, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    settings = SETTINGS | {"network": NETWORKS["unet"]}
    trainer = training.segmenter_trainer("unet", [small], settings | {"compile": True}, torch.device("cpu"))
    assert compiled == [trainer.model]
    training.segmenter_trainer("unet", [small], settings, torch.device("cpu"))
    assert len(compiled) == 1


def test_early_stopping(small, tmp_path):
    settings = SETTINGS | {"network": NETWORKS["unet"], "epochs": 30, "patience": 1, "learning_rate": 1e-9}
    train_segmenter("unet", [small], [small], settings, tmp_path)
    epochs = pd.read_csv(tmp_path / "epochs.csv")
    assert len(epochs) < 30 and len(epochs) == epochs["val_mean_iou"].idxmax() + 1 + 1


def test_no_usable_slide_is_an_error(small, small_slide, tmp_path):
    from conftest import OUTLINES

    from glomerulearn.slide_outlines import read_slide_outlines

    (tmp_path / "empty.geojson").write_text("no outlines")
    wrong = tmp_path / "wrong.geojson"
    read_slide_outlines("small", small_slide[0], tmp_path / "empty.geojson", None, OUTLINES, wrong)
    with pytest.raises(InputError, match="split `val`"):
        train_segmenter("unet", [small], [(small[0], wrong)], SETTINGS | {"network": NETWORKS["unet"]}, tmp_path)


def test_windows_are_balanced_and_reproducible(small):
    settings = {
        "augmentation": AUGMENTATION,
        "glomerulus_share": 1.0,
        "class_balance": 0.0,
        "paste": 0.0,
        "normalise": False,
        "same_size": False,
    }
    around = RandomWindows([small], 64, 40, settings, 0)
    anywhere = RandomWindows([small], 64, 40, settings | {"glomerulus_share": 0.0}, 0)
    share = [np.mean([data[i][1].any() for i in range(40)]) for data in (around, anywhere)]
    assert share[0] > 0.9 and share[1] < 0.7
    again = RandomWindows([small], 64, 40, settings, 0)
    assert all(np.array_equal(a, b) for a, b in zip(around[5], again[5], strict=True))
    assert len(glomerulus_centres(PatchStore(*small))) >= 6


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
