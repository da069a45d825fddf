"""A convolutional autoencoder of glomerulus crops: three stages, each halving the crop twice, and a dense latent."""

import torch
from torch import nn

from glomerulearn.networks.blocks import initialise

STAGE_STRIDE = 4  # how much one stage shrinks the crop


class Autoencoder(nn.Module):
    """Autoencoder with `channels` per stage (the study's: 128, 256, 512) and a `latent` of 512.

    Input and output: float (N, 3, size_px, size_px); size_px divisible by 4 ** len(channels).
    """

    def __init__(self, size_px: int = 192, channels: tuple[int, ...] = (128, 256, 512), latent: int = 512):
        super().__init__()
        side = size_px // STAGE_STRIDE ** len(channels)
        if side * STAGE_STRIDE ** len(channels) != size_px or side == 0:
            raise ValueError(f"size_px {size_px} is no multiple of {STAGE_STRIDE ** len(channels)}")
        self.shape = channels[-1], side, side
        flat = channels[-1] * side * side
        down, up = [], []
        for source, target in zip([3, *channels[:-1]], channels, strict=True):
            down += [_conv(source, target, 2), _conv(target, target, 2)]
            up = [nn.Upsample(scale_factor=2), _conv(target, target, 1), nn.Upsample(scale_factor=2),
                  _conv(target, max(source, 8), 1), *up]  # fmt: skip
        self.down = nn.Sequential(*down)
        self.to_latent = nn.Linear(flat, latent)
        self.from_latent = nn.Linear(latent, flat)
        self.up = nn.Sequential(*up, nn.Conv2d(8, 3, 3, padding=1))
        initialise(self)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The latent (N, latent) of images."""
        return self.to_latent(self.down(images).flatten(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.up(self.from_latent(self.encode(images)).unflatten(1, self.shape))


def _conv(source: int, target: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(source, target, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(target),
        nn.ReLU(inplace=True),
    )
