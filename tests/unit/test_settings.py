"""Configuration: the shipped one is valid, and every error names key, finding and fix."""

import copy

import pytest
import yaml
from conftest import ROOT

from glomerulearn.errors import InputError
from glomerulearn.settings import check_config, start_of

SCHEMA = ROOT / "schemas" / "config.schema.yaml"
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())


def changed(path, value):
    config = copy.deepcopy(DEFAULT)
    room = config
    for key in path[:-1]:
        room = room[key]
    room[path[-1]] = value
    return config


def merged(base, changes):
    return {
        key: merged(base.get(key, {}), value) if isinstance(value, dict) else value
        for key, value in {**base, **changes}.items()
    }


@pytest.mark.parametrize("preset", [None, "cpu", "demo", "original"])
def test_shipped_configurations_are_valid(preset):
    changes = yaml.safe_load((ROOT / "config" / "presets" / f"{preset}.yaml").read_text()) if preset else {}
    check_config(merged(DEFAULT, changes), SCHEMA)


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        (["tiling", "mmp"], 1, ["`tiling`", "`mmp`", "did you mean `mpp`"]),
        (["tiling", "mpp"], "four", ["`tiling: mpp`", "'four'", "micrometres"]),
        (["tiling", "min_tissue"], 5, ["`tiling: min_tissue`", "5", "0 to 1"]),
        (["reduction", "reducers"], ["pca", "lda"], ["`reduction: reducers: 1`", "'lda'", "umap"]),
        (["clustering", "k_range"], [10, 2], ["`clustering: k_range`", "lowest first"]),
        (["outlines", "classes", 1], "mild", ["`outlines: classes`", "quotes"]),
        (["tiling", "patch_size_px"], 100, ["`tiling: patch_size_px`", "multiple of 32"]),
        (["detection", "overlap_px"], 512, ["`detection: overlap_px`", "512", "window_px"]),
        (["detection", "overlap_px"], 600, ["`detection: overlap_px`", "600", "window_px"]),
        (["detection", "threshold"], 0.97, ["`detection: threshold`", "seed_threshold"]),
        (["detection", "seed_threshold"], 1, ["`detection: seed_threshold`", "less than 1"]),
        (["segmentation", "networks", "deeplabv3plus", "encoder"], "resnet99", ["`segmentation: networks", "resnet50"]),
        (["segmentation", "networks", "segnet"], {"weights": "vgg.pth", "width": 0.25}, ["segnet: width`", "0.25"]),
        (["detection", "zooms"], [1, 0], ["`detection: zooms: 1`", "0.5 to 4"]),
        (
            ["segmentation", "second_look", "epochs"],
            -1,
            ["`segmentation: second_look: epochs`", "-1", "no second look"],
        ),
        (["detection", "split_waist"], 0, ["`detection: split_waist`", "above 0"]),
        (["detection", "compare_on"], ["test"], ["`detection: compare_on`", "val"]),
        (["embedding", "autoencoder", "size_px"], 200, ["`embedding: autoencoder: size_px`", "multiple of 64"]),
        (["embedding", "denoising", "size_px"], 72, ["`embedding: denoising: size_px`", "multiple of 64"]),
        (["embedding", "segmenter", "size_px"], 100, ["`embedding: segmenter: size_px`", "multiple of 32"]),
        (["embedding", "fine_tune"], ["autoencoder"], ["`embedding: fine_tune`", "'autoencoder'", "resnet50"]),
        (
            ["embedding", "efficientnet", "weights"],
            "my.pth",
            ["`embedding: efficientnet: weights`", "'my.pth'", "3 networks"],
        ),
        (["reduction", "tsne", "components"], 3, ["`reduction: tsne: components`", "3", "1 or 2"]),
        (["reduction", "site_effect"], "harmony", ["`reduction: site_effect`", "none, centre or combat"]),
        (["embedding", "vgg19", "sha256"], "abc", ["`embedding: vgg19: sha256`", "64 hexadecimal"]),
        (["slides"], None, ["`slides` and `crops`"]),
    ],
)
def test_errors_name_key_and_fix(path, value, parts):
    with pytest.raises(InputError) as error:
        check_config(changed(path, value), SCHEMA)
    for part in parts:
        assert part in str(error.value)


def test_crops_alone_have_no_segmenter():
    config = changed(["embedding", "extractors"], ["segmenter"]) | {"slides": None, "crops": "crops.tsv"}
    with pytest.raises(InputError, match="found 'segmenter'"):
        check_config(config, SCHEMA)


def test_missing_room_is_named():
    config = copy.deepcopy(DEFAULT)
    del config["tiling"]
    with pytest.raises(InputError, match="tiling"):
        check_config(config, SCHEMA)


def test_deeplab_needs_more_than_one_window_at_once_where_it_is_trained():
    config = changed(["segmentation", "batch"], 1)
    check_config(config, SCHEMA)
    config["segmentation"]["segmenters"] = ["deeplabv3plus"]
    with pytest.raises(InputError, match="`segmentation: batch`: found 1, too few for deeplabv3plus"):
        check_config(config, SCHEMA)
    check_config(config | {"pretrained": {"deeplabv3plus": "model.safetensors"}}, SCHEMA)


@pytest.mark.parametrize(
    ("network", "pretrained", "words"),
    [
        ({"encoder": "efficientnet_lite0", "weights": "package"}, None, "ImageNet"),
        ({"weights": "torchvision"}, None, "ImageNet"),
        ({"encoder": "resnet34", "weights": "/data/resnet34.pth"}, None, "/data/resnet34.pth"),
        ({"encoder": "plain", "weights": "package"}, None, "from scratch"),
        ({"width": 0.25}, None, "from scratch"),
        ({"weights": "package"}, "https://host/model.safetensors", "https://host/model.safetensors"),
    ],
)
def test_scores_tell_what_a_segmenter_started_from(network, pretrained, words):
    assert start_of(network, pretrained) == words
