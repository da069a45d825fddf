"""What the networks are built of."""

import torch
from torch import nn


def conv_block(source: int, target: int, count: int, last: int | None = None) -> nn.Sequential:
    """`count` times 3x3 convolution, batch norm, ReLU: `source` to `target` channels, the final one to `last`."""
    layers = []
    for index in range(count):
        width = last if last is not None and index == count - 1 else target
        layers += [nn.Conv2d(source, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        source = width
    return nn.Sequential(*layers)


def initialise(module: nn.Module) -> None:
    """Kaiming initialisation (He et al. 2015); a five-stage SegNet hardly trains without it."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def masked_mean(features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Features (N, c, h, w) averaged where masks (N, H, W) are not 0: (N, c)."""
    weights = nn.functional.adaptive_avg_pool2d(masks[:, None], features.shape[-2:])
    return (features * weights).sum((2, 3)) / weights.sum((2, 3)).clamp(min=1e-6)
