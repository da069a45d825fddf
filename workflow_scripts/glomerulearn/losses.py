"""What a segmenter is trained to make small."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import nn

_SIDE_WEIGHT = 0.5
_BOUNDARY_WEIGHT = 0.5
_TOLERANCE_PX = 2  # a predicted boundary so near to a true one counts as found
_WEIGHTS = 0.3, 4.0  # lowest and highest weight of a glomerulus: a window's edge leaves slivers of some


def segmentation_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the classes, plus soft Dice loss (Milletari et al. 2016) of glomerulus, whatever its label.

    logits: (N, classes, h, w); labels: int64 (N, h, w), 0 = background.
    """
    errors, dice_loss = _parts(logits, labels)
    return errors.mean() + dice_loss


def _parts(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The cross-entropy of every pixel (N, h, w), and the Dice loss of all."""
    errors = nn.functional.cross_entropy(logits, labels, reduction="none")
    probability, truth = 1 - logits.softmax(1)[:, 0], (labels > 0).float()
    overlap = (probability * truth).sum()
    return errors, 1 - (2 * overlap + 1) / (probability.sum() + truth.sum() + 1)


def glomerulus_weights(labels: np.ndarray) -> np.ndarray:
    """How much each pixel of a batch counts in the cross-entropy, so that glomeruli count alike, small ones and large.

    Pixel by pixel a scar of half a normal glomerulus's diameter has a quarter of its say, and networks do without it.
    Inverse weighting after Shirokikh et al. 2020: a glomerulus weighs the mean area of the batch's divided by its own.
    labels: (N, h, w), 0 = background; touching glomeruli are one. Returns: float32 (N, h, w), 1 in the background.
    """
    parts, areas = [], []
    for window in labels:
        inside = (window > 0).astype(np.uint8)
        # 16 bits take half the time of 32
        _, numbers, statistics, _ = cv2.connectedComponentsWithStats(inside, ltype=cv2.CV_16U)
        parts.append(numbers)
        areas.append(statistics[1:, cv2.CC_STAT_AREA])
    mean = np.concatenate(areas).mean() if any(map(len, areas)) else 1.0
    by_number = (np.concatenate([[1.0], np.clip(mean / own, *_WEIGHTS)]).astype(np.float32) for own in areas)
    return np.stack([weights[numbers] for weights, numbers in zip(by_number, parts, strict=True)])


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
    outputs: torch.Tensor | Sequence[torch.Tensor], labels: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss to descend, and `segmentation_loss` of the network's output alone, which compares with that of other slides.

    outputs: logits (N, classes, h, w), or a list of them and of those of deeper layers at smaller sizes, whose mean loss
    counts half (deep supervision, Lee et al. 2015), as does the loss of the output's boundary; labels: int64 (N, h, w);
    weights: float (N, h, w), of each pixel in the cross-entropy (`glomerulus_weights`).
    """
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    logits = outputs[0].float()
    loss, own = _weighed_and_plain(logits, labels, weights)
    loss = loss + _BOUNDARY_WEIGHT * boundary_loss(logits, labels)
    sides = []
    for side in outputs[1:]:
        shrunk_labels, shrunk_weights = (_shrink(values, side.shape[-2:]) for values in (labels, weights))
        sides.append(_weighed_and_plain(side.float(), shrunk_labels.long(), shrunk_weights)[0])
    return loss + _SIDE_WEIGHT * sum(sides) / max(1, len(sides)), own.detach()


def _weighed_and_plain(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`segmentation_loss` with the pixels of its cross-entropy weighed, and without."""
    errors, dice_loss = _parts(logits, labels)
    return (errors * weights).sum() / weights.sum() + dice_loss, errors.mean() + dice_loss


def _edge(areas: torch.Tensor) -> torch.Tensor:
    """The outermost pixels of areas float (N, 1, h, w) in 0 to 1."""
    return _widen(1 - areas, 3) - (1 - areas)


def _widen(areas: torch.Tensor, side_px: int) -> torch.Tensor:
    return nn.functional.max_pool2d(areas, side_px, stride=1, padding=side_px // 2)


def _shrink(values: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return nn.functional.interpolate(values[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0]
