"""What a segmenter is trained to make small."""

from collections.abc import Sequence

import torch
from torch import nn

_SIDE_WEIGHT = 0.5


def segmentation_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the classes, plus soft Dice loss (Milletari et al. 2016) of glomerulus, whatever its label.

    logits: (N, classes, h, w); labels: int64 (N, h, w), 0 = background.
    """
    cross_entropy = nn.functional.cross_entropy(logits, labels)
    probability, truth = 1 - logits.softmax(1)[:, 0], (labels > 0).float()
    overlap = (probability * truth).sum()
    dice = (2 * overlap + 1) / (probability.sum() + truth.sum() + 1)
    return cross_entropy + 1 - dice


def deep_loss(
    outputs: torch.Tensor | Sequence[torch.Tensor], labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss to descend, and that of the network's output alone, which are the same without deep supervision.

    outputs: logits (N, classes, h, w), or a list of them and of those of deeper layers at smaller sizes, whose mean loss
    counts half (deep supervision, Lee et al. 2015); labels: int64 (N, h, w).
    """
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    loss = segmentation_loss(outputs[0].float(), labels)
    sides = [segmentation_loss(side.float(), _shrink(labels, side.shape[-2:])) for side in outputs[1:]]
    return loss + _SIDE_WEIGHT * sum(sides) / max(1, len(sides)), loss.detach()


def _shrink(labels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return nn.functional.interpolate(labels[:, None].float(), size=tuple(size), mode="nearest")[:, 0].long()
