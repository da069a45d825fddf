"""The configuration: check it (every error names the key, what was found, what may stand there), and say it in words.

Imported while the workflow is parsed, so nothing heavy here.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from glomerulearn.errors import InputError

EXTRACTORS = (
    "autoencoder", "denoising", "contrastive", "segmenter", "vgg19", "resnet50", "efficientnet", "morphology"
)  # fmt: skip
_STARTS = {"none": "from scratch", "torchvision": "ImageNet", "package": "ImageNet"}


def check_config(config: Mapping, schema: str | Path) -> None:
    """Raise InputError for the first key of `config` that `schema` (YAML file) does not allow, or that contradicts another."""
    error = best_match(Draft202012Validator(yaml.safe_load(Path(schema).read_text())).iter_errors(config))
    if error is not None:
        raise InputError(_explain(error))
    if config["slides"] is None and config["crops"] is None:
        raise InputError(
            "config keys `slides` and `crops` are both null; give the path of a slide sheet or of a crop sheet"
        )
    for first, second in (
        ("detection: overlap_px", "detection: window_px"),
        ("detection: threshold", "detection: seed_threshold"),
    ):
        room, low, high = first.split(": ")[0], first.split(": ")[1], second.split(": ")[1]
        allowed = config[room][low] < config[room][high] or (
            low == "threshold" and config[room][low] == config[room][high]
        )
        if not allowed:
            raise InputError(
                f"config key `{first}`: found {config[room][low]}, too much beside `{second}` ({config[room][high]}); lower it"
            )
    for key, (low, high) in (
        ("clustering: k_range", config["clustering"]["k_range"]),
        ("segmentation: augmentation: scale", config["segmentation"]["augmentation"]["scale"]),
    ):
        if low > high:
            raise InputError(f"config key `{key}`: found [{low}, {high}]; give the lowest first")
    segmentation = config["segmentation"]
    taken = set() if config["cross_validate"] else set(config["pretrained"])
    trained = set(segmentation["segmenters"]) - taken
    if "deeplabv3plus" in trained and segmentation["batch"] == 1:
        raise InputError("config key `segmentation: batch`: found 1, too few for deeplabv3plus; give at least 2")
    segnet = segmentation["networks"]["segnet"]
    if "segnet" in trained and segnet.get("weights", "none") != "none" and segnet.get("width", 1) != 1:
        raise InputError(
            f"config key `segmentation: networks: segnet: width`: found {segnet['width']}, but `weights` are of VGG's full "
            "width; give 1"
        )
    embedding = config["embedding"]
    known = [*EXTRACTORS, *embedding["networks"]]
    for name in embedding["extractors"]:
        if name not in known:
            raise InputError(f"config key `embedding: extractors`: found {name!r}; known are {', '.join(known)}")
    for name in set(EXTRACTORS) & set(embedding["networks"]):
        raise InputError(f"config key `embedding: networks`: {name!r} has a meaning of its own; take another name")
    if "segmenter" in embedding["extractors"] and config["slides"] is None:
        raise InputError(
            "config key `embedding: extractors`: found 'segmenter', but a cohort of crops only has no segmenter; take it out"
        )
    for name in embedding["fine_tune"]:
        pretrained = ("vgg19", "resnet50", "efficientnet", *embedding["networks"])
        if name not in pretrained or config["slides"] is None:
            why = f"known are {', '.join(pretrained)}" if config["slides"] else "a cohort of crops only has no windows"
            raise InputError(f"config key `embedding: fine_tune`: found {name!r}; {why}")
    efficientnet = embedding["efficientnet"]
    if efficientnet["weights"] not in ("package", "random") and len(efficientnet["networks"]) > 1:
        raise InputError(
            f"config key `embedding: efficientnet: weights`: found {efficientnet['weights']!r}, one file for "
            f"{len(efficientnet['networks'])} networks; name the one it is of in `networks`"
        )
    for name in ("autoencoder", "denoising"):
        size_px, stages = embedding[name]["size_px"], len(embedding[name]["channels"])
        if size_px % 4**stages:
            raise InputError(
                f"config key `embedding: {name}: size_px`: found {size_px}; with {stages} stages of `channels` it must be a "
                f"multiple of {4**stages}"
            )


def start_of(network: Mapping, pretrained: str | None = None) -> str:
    """What a segmenter was trained from, in words, so that no score is compared without it.

    network: its settings, in which a file of weights is its own name. pretrained: whence it was taken, if not trained here.
    """
    # a plain encoder has no weights to start from, whatever `weights` says of the others
    weights = "none" if network.get("encoder") == "plain" else network.get("weights", "none")
    return pretrained or _STARTS.get(weights, weights)


def _explain(error) -> str:
    path = ": ".join(str(part) for part in error.absolute_path)
    where = f"config key `{path}`" if path else "config"
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = next(key for key in error.instance if key not in known)
        close = get_close_matches(str(unknown), known, 1)
        hint = f"did you mean `{close[0]}`? " if close else ""
        return f"{where}: unknown key `{unknown}`; {hint}Known are {', '.join(known)}"
    if error.validator == "required":
        return f"{where}: {error.message}; config.yaml shows every key with its default"
    return f"{where}: found {error.instance!r}; give {error.schema.get('description', error.message)}"
