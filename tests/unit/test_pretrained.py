"""Segmenters that were trained elsewhere: taken in as they are, refused with a reason, never trusted on slides they know."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from glomerulearn.errors import InputError
from glomerulearn.familiarity import data_digest, file_of
from glomerulearn.leaks import check_leaks
from glomerulearn.models import load_segmenter, save_model
from glomerulearn.networks.segmenters import build_segmenter
from glomerulearn.patches import PatchStore
from glomerulearn.pretrained import take_segmenter

NETWORK = {"base": 4, "depth": 3}


@pytest.fixture
def elsewhere(small_store, tmp_path):
    """The folder of a U-Net as another cohort's training leaves it."""
    torch.manual_seed(3)
    facts = {
        "segmenter": "unet", "network": NETWORK, "classes": ["glomerulus"], "mpp": 2.0, "train": ["small"],
        "normalise": True, "known": {"files": [file_of(PatchStore(small_store).attributes)]},
    }  # fmt: skip
    save_model(tmp_path / "elsewhere", build_segmenter("unet", NETWORK).state_dict(), facts, [{"epoch": 1}])
    return tmp_path / "elsewhere"


def test_one_file_is_enough(elsewhere, tmp_path):
    """The weights' file carries its card, so that it can be sent without anything else."""
    path = tmp_path / "sent.safetensors"
    shutil.copyfile(elsewhere / "model.safetensors", path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = take_segmenter("unet", f"{path}#sha256={digest.upper()}", 2.0, tmp_path / "taken")
    assert facts["pretrained"] == str(path) and facts["sha256"] == digest
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        there, here = (load_segmenter(folder)[0](image) for folder in (elsewhere, tmp_path / "taken"))
    assert torch.equal(there, here)


def test_an_address_is_fetched(elsewhere, tmp_path, monkeypatch):
    asked = []

    def answer(address, timeout):
        asked.append(address)
        return (elsewhere / "model.safetensors").open("rb")

    monkeypatch.setattr("urllib.request.urlopen", answer)
    take_segmenter("unet", "https://example.org/unet.safetensors", 2.0, tmp_path / "taken")
    assert asked == ["https://example.org/unet.safetensors"] and (tmp_path / "taken" / "model.json").is_file()


def test_what_does_not_fit_is_refused(elsewhere, tmp_path):
    path, target = str(elsewhere / "model.safetensors"), tmp_path / "taken"
    with pytest.raises(InputError, match=r"config key `pretrained`: .*gone\.safetensors cannot be had"):
        take_segmenter("unet", "gone.safetensors", 2.0, target)
    with pytest.raises(InputError, match=r"sha256 is .*, config says 0000"):
        take_segmenter("unet", path + "#sha256=" + "0" * 64, 2.0, target)
    with pytest.raises(InputError, match="a unet, but config names it under `pretrained: segnet`"):
        take_segmenter("segnet", path, 2.0, target)
    with pytest.raises(InputError, match="trained at 2.0 um per pixel, but `tiling: mpp` is 4.0"):
        take_segmenter("unet", path, 4.0, target)
    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match=r"bare\.safetensors: holds weights, but no model card"):
        take_segmenter("unet", str(tmp_path / "bare.safetensors"), 2.0, target)
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(InputError, match="not a safetensors file"):
        take_segmenter("unet", str(tmp_path / "text.safetensors"), 2.0, target)


def test_a_test_slide_it_was_trained_on_is_a_leak(elsewhere, small_store, tmp_path):
    take_segmenter("unet", str(elsewhere / "model.safetensors"), 2.0, tmp_path / "taken")
    card = tmp_path / "taken" / "model.json"
    with pytest.raises(InputError, match="leak: slide 'small' has split test, but .* was trained on the same file"):
        check_leaks([small_store], {"small": ("test", "")}, tmp_path / "leaks.tsv", [card])
    with pytest.raises(InputError, match="leak: slide 'small' has split val"):
        check_leaks([small_store], {"small": ("val", "")}, tmp_path / "leaks.tsv", [card])
    check_leaks([small_store], {"small": ("train", "")}, tmp_path / "leaks.tsv", [card])
    own = file_of(PatchStore(small_store).attributes)
    card.write_text(json.dumps(json.loads(card.read_text()) | {"known": {"files": ["another"], "val_files": [own]}}))
    with pytest.raises(InputError, match="leak: slide 'small' has split test, but .* was chosen by the same file"):
        check_leaks([small_store], {"small": ("test", "")}, tmp_path / "leaks.tsv", [card])
    check_leaks([small_store], {"small": ("val", "")}, tmp_path / "leaks.tsv", [card])
    card.write_text(json.dumps(json.loads(card.read_text()) | {"known": {"files": ["another"]}}))
    check_leaks([small_store], {"small": ("test", "")}, tmp_path / "leaks.tsv", [card])


def test_data_digest_tells_edited_outlines(small, small_slide, tmp_path):
    from conftest import OUTLINES

    from glomerulearn.slide_outlines import read_slide_outlines

    path, outlines, _ = small_slide
    edited = json.loads(outlines.read_text())
    edited["features"].pop()
    (tmp_path / "edited.geojson").write_text(json.dumps(edited))
    stores = [PatchStore(*small)]
    for name, file in (("other name", outlines), ("small", tmp_path / "edited.geojson")):
        read_slide_outlines(name, path, file, None, OUTLINES, tmp_path / f"{name}.read.geojson")
        stores.append(PatchStore(small[0], tmp_path / f"{name}.read.geojson"))
    whole, same, edited = (data_digest([store]) for store in stores)
    assert whole == same and whole != edited
