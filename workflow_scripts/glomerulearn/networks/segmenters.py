"""The segmenters by name; `build_segmenter` makes one from its settings."""

from collections.abc import Mapping

import torch
from torch import nn

from glomerulearn.errors import InputError
from glomerulearn.networks.deeplab import deeplabv3plus
from glomerulearn.networks.segnet import SegNet
from glomerulearn.networks.unet import UNet

SEGMENTERS = {"segnet": SegNet, "unet": UNet, "deeplabv3plus": deeplabv3plus}


def build_segmenter(name: str, settings: Mapping, classes: int = 2) -> nn.Module:
    """The segmenter `name` with `settings` (its keyword arguments), giving logits (N, classes, h, w) for (N, 3, h, w)."""
    if name not in SEGMENTERS:
        raise InputError(f"segmenter {name!r} is unknown; known are {', '.join(SEGMENTERS)}")
    try:
        return SEGMENTERS[name](classes=classes, **settings)
    except TypeError as error:
        raise InputError(f"config key `segmenters: {name}`: {error}") from error


def encode(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The deepest features (N, c, h', w') that a segmenter computes of images (N, 3, h, w)."""
    if hasattr(model, "encode"):
        return model.encode(images)
    return model.encoder(images)[-1]  # segmentation-models-pytorch's give the features of every resolution
