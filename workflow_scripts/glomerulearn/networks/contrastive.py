"""A small convolutional encoder for contrastive learning, and the head that the loss sees."""

from itertools import pairwise

import torch
from torch import nn

from glomerulearn.networks.blocks import conv_block, initialise, masked_mean


class ContrastiveNet(nn.Module):
    """A strided 5x5 convolution, then stages of a 2x2 pooling and two 3x3 convolutions, the mean over the glomerulus, a head.

    channels: of the first convolution and of each stage; projection: length of what the loss compares. Input: float
    (N, 3, h, w), h and w divisible by 2 ** len(channels), and masks (N, h, w).
    """

    def __init__(self, channels: tuple[int, ...] = (32, 64, 128, 256), projection: int = 64):
        super().__init__()
        first = nn.Conv2d(3, channels[0], 5, stride=2, padding=2, bias=False)
        stages = [first, nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True)]
        for source, target in pairwise(channels):
            stages += [nn.MaxPool2d(2), conv_block(source, target, 2)]
        self.stages = nn.Sequential(*stages)
        width = channels[-1]
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Linear(width, projection)
        )
        initialise(self.stages)

    def encode(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """The vectors (N, channels[-1]): features averaged over the glomerulus."""
        return masked_mean(self.stages(images), masks)

    def forward(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return self.head(self.encode(images, masks))
