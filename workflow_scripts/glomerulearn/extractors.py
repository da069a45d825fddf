"""What turns prepared glomeruli into vectors: networks trained elsewhere, or on this cohort, by the name in config."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
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
NETWORKS = {"vgg19": "vgg19", "resnet50": "resnet50"}


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

    settings: `weights`, `sha256`, `seed` (what random weights are drawn from), for `efficientnet` the list `networks`, and for
    a network of timm's by its name `timm` and `options`. Raises: InputError as `build_extractor`.
    """
    network = _untrained(name, settings)
    for each in network.networks if isinstance(network, Joined) else [network]:
        model = each.default_cfg.get("architecture", name).removeprefix("tf_")
        load_encoder_weights(each, model, settings["weights"], settings["sha256"])
    return network, "ImageNet" if settings["weights"] in ("torchvision", "package") else settings["weights"]


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
    trunk = _untrained(name, settings)
    trunk.reset_classifier(2)
    trunk.load_state_dict(load_file(folder / "model.safetensors"))
    return trunk, json.loads((folder / "model.json").read_text())["weights"]


class Joined(nn.Module):
    """Several networks whose vectors are laid one after the other: what one of them misses, another sees."""

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def reset_classifier(self, classes: int) -> None:
        """Give every network a new last layer."""
        for network in self.networks:
            network.reset_classifier(classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Mean logits (N, classes)."""
        return torch.stack([network(images) for network in self.networks]).mean(0)


def _untrained(name: str, settings: Mapping) -> nn.Module:
    torch.manual_seed(settings["seed"])
    if name == "efficientnet":
        networks = [_of_timm(f"tf_{network}", {}) for network in settings["networks"]]
        return networks[0] if len(networks) == 1 else Joined(networks)
    network = settings.get("timm") or NETWORKS.get(name)
    if network is None:
        raise InputError(f"extractor {name!r} is unknown; see `embedding:` in config.yaml for those that are known")
    return _of_timm(network, settings.get("options") or {})


def _of_timm(network: str, options: Mapping) -> nn.Module:
    import timm  # slow to import, and only these extractors need it

    try:
        return timm.create_model(network, pretrained=False, **options)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"timm cannot make the network {network!r} with {dict(options)}: {error}") from error


def _pool(trunk: nn.Module, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Features (N, c): maps averaged over the glomerulus; what has no maps (transformers) pools as it was trained to."""
    if isinstance(trunk, Joined):
        return torch.cat([_pool(network, images, masks) for network in trunk.networks], 1)
    features = trunk.forward_features(images)
    if features.ndim == 4:
        return masked_mean(features, masks)
    return trunk.forward_head(features, pre_logits=True)
