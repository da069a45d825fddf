"""What turns prepared glomeruli into vectors: networks trained elsewhere, or on this cohort, by the name in config."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

from glomerulearn.errors import InputError
from glomerulearn.models import load_segmenter
from glomerulearn.networks.autoencoder import Autoencoder
from glomerulearn.networks.blocks import masked_mean
from glomerulearn.networks.contrastive import ContrastiveNet
from glomerulearn.networks.segmenters import encode
from glomerulearn.networks.weights import load_encoder_weights
from glomerulearn.preparation import to_rgb

log = logging.getLogger(__name__)

TRAINED = ("autoencoder", "denoising", "contrastive")  # on the crops of the cohort
# timm's names; its VGG19 and ResNet50 take torchvision's weights as they are
NETWORKS = {"vgg19": "vgg19", "resnet50": "resnet50", "efficientnet": "tf_efficientnet_lite0"}


class Extractor(NamedTuple):
    """embed: images float32 (N, 3, size_px, size_px), masks (N, size_px, size_px) -> vectors (N, d)."""

    embed: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    size_px: int
    weights: str


def build_extractor(name: str, settings: Mapping, model_folder: Path | None, device: torch.device) -> Extractor:
    """The extractor `name`, ready on `device`.

    settings: of the extractor. For those of `TRAINED` only what `model_folder` says counts, for `segmenter` (the encoder of the
    segmenter in `model_folder`) also `size_px`; for all others as `pretrained_network`, and `size_px`. With a `model_folder`
    their weights are those that `fine_tuning` left there.
    Raises: InputError when the weights cannot be had or do not fit.
    """
    if name in TRAINED:
        return _trained(name, model_folder, device)
    if name == "segmenter":
        return _segmenter(model_folder, settings["size_px"], device)
    if model_folder is None:
        trunk, weights = pretrained_network(name, settings)
        if weights == "random":
            log.warning("%s has RANDOM weights, as config asks: its clusters are no evidence", name)
    else:
        trunk, weights = _fine_tuned(name, settings, Path(model_folder))
    trunk.to(device, memory_format=torch.channels_last).eval()
    return Extractor(lambda images, masks: _pool(trunk, images, masks), settings["size_px"], weights)


def pretrained_network(name: str, settings: Mapping) -> tuple[nn.Module, str]:
    """The network of timm's behind extractor `name`, filled with its weights, and in words where these come from.

    settings: `weights`, `sha256`, `seed` (what random weights are drawn from), and for a network of timm's by its name `timm`
    and `options`. Raises: InputError as `build_extractor`.
    """
    trunk, network = _of_timm(name, settings)
    load_encoder_weights(trunk, network.removeprefix("tf_"), settings["weights"], settings["sha256"])
    return trunk, "ImageNet" if settings["weights"] in ("torchvision", "package") else settings["weights"]


def _trained(name: str, folder: Path, device: torch.device) -> Extractor:
    facts = json.loads((Path(folder) / "model.json").read_text())["settings"]
    if name == "contrastive":
        model = ContrastiveNet(tuple(facts["channels"]), facts["projection"])
    else:
        model = Autoencoder(facts["size_px"], tuple(facts["channels"]), facts["latent"])
    model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    model.to(device).eval()
    encode = model.encode if name == "contrastive" else lambda images, masks: model.encode(images)
    return Extractor(encode, facts["size_px"], "trained on the cohort")


def _segmenter(folder: Path, size_px: int, device: torch.device) -> Extractor:
    model, facts = load_segmenter(folder, device)

    def embed(images, masks):
        return masked_mean(encode(model, to_rgb(images) * 2 - 1), masks)  # segmenters take -1..1

    return Extractor(embed, size_px, f"those of the {facts['segmenter']} segmenter")


def _fine_tuned(name: str, settings: Mapping, folder: Path) -> tuple[nn.Module, str]:
    trunk, _ = _of_timm(name, settings)
    trunk.reset_classifier(2)
    trunk.load_state_dict(load_file(folder / "model.safetensors"))
    return trunk, json.loads((folder / "model.json").read_text())["weights"]


def _of_timm(name: str, settings: Mapping) -> tuple[nn.Module, str]:
    import timm  # slow to import, and only these extractors need it

    torch.manual_seed(settings["seed"])
    network, options = settings.get("timm") or NETWORKS.get(name), settings.get("options") or {}
    if network is None:
        raise InputError(f"extractor {name!r} is unknown; see `embedding:` in config.yaml for those that are known")
    try:
        return timm.create_model(network, pretrained=False, **options), network
    except (RuntimeError, TypeError) as error:
        raise InputError(f"timm cannot make the network {network!r} with {dict(options)}: {error}") from error


def _pool(trunk: nn.Module, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Features (N, c): maps averaged over the glomerulus; what has no maps (transformers) pools as it was trained to."""
    features = trunk.forward_features(images)
    if features.ndim == 4:
        return masked_mean(features, masks)
    return trunk.forward_head(features, pre_logits=True)
