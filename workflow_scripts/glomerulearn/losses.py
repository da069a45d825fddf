"""What a segmenter is trained to make small."""

from collections.abc import Sequence

import torch
from torch import nn

_SIDE_WEIGHT = 0.5
_BOUNDARY_WEIGHT = 0.5
_TOLERANCE_PX = 2  # a predicted boundary so near to a true one counts as found


def segmentation_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the classes, plus soft Dice loss (Milletari et al. 2016) of glomerulus, whatever its label.

    logits: (N, classes, h, w); labels: int64 (N, h, w), 0 = background.
    """
    cross_entropy = nn.functional.cross_entropy(logits, labels)
    probability, truth = 1 - logits.softmax(1)[:, 0], (labels > 0).float()
    overlap = (probability * truth).sum()
    dice = (2 * overlap + 1) / (probability.sum() + truth.sum() + 1)
    return cross_entropy + 1 - dice


def boundary_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """1 - F1 of the predicted boundary of glomeruli against the true one (Bokhovkin, Burnaev 2019).

    Area makes a mask right long before its edge is; where glomeruli touch, or a scar fades into the tissue, the edge decides.
    logits: (N, classes, h, w); labels: int64 (N, h, w), 0 = background.
    """
    found, true = _edge(1 - logits.softmax(1)[:, :1]), _edge((labels > 0)[:, None].float())
    near_px = 2 * _TOLERANCE_PX + 1
    precision = (found * _widen(true, near_px)).sum() / (found.sum() + 1)
    recall = (true * _widen(found, near_px)).sum() / (true.sum() + 1)
    return 1 - 2 * precision * recall / (precision + recall + 1e-6)


def deep_loss(
    outputs: torch.Tensor | Sequence[torch.Tensor], labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss to descend, and `segmentation_loss` of the network's output alone, which compares with that of other slides.

    outputs: logits (N, classes, h, w), or a list of them and of those of deeper layers at smaller sizes, whose mean loss
    counts half (deep supervision, Lee et al. 2015), as does the loss of the output's boundary; labels: int64 (N, h, w).
    """
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    logits = outputs[0].float()
    own = segmentation_loss(logits, labels)
    loss = own + _BOUNDARY_WEIGHT * boundary_loss(logits, labels)
    sides = [segmentation_loss(side.float(), _shrink(labels, side.shape[-2:])) for side in outputs[1:]]
    return loss + _SIDE_WEIGHT * sum(sides) / max(1, len(sides)), own.detach()


def _edge(areas: torch.Tensor) -> torch.Tensor:
    """The outermost pixels of areas float (N, 1, h, w) in 0 to 1."""
    return _widen(1 - areas, 3) - (1 - areas)


def _widen(areas: torch.Tensor, side_px: int) -> torch.Tensor:
    return nn.functional.max_pool2d(areas, side_px, stride=1, padding=side_px // 2)


def _shrink(labels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return nn.functional.interpolate(labels[:, None].float(), size=tuple(size), mode="nearest")[:, 0].long()
