"""Crops as networks take them: one stain, no background, no size, any orientation.

Pixels come first: otherwise vectors tell the laboratory, the neighbourhood and the size before they tell the tissue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import cv2
import numpy as np

from glomerulearn.crops import CropStore
from glomerulearn.stain import normalise

if TYPE_CHECKING:
    import torch  # slow to import, and measuring does without it

# ImageNet's, which pretrained networks expect
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def prepare(store: CropStore, settings: Mapping, size_px: int, stain: str) -> tuple[np.ndarray, np.ndarray]:
    """The crops of one slide as a network takes them, brought to one stain by the method `stain`.

    settings: as `fit_crops`, and `mask_background`.
    Returns: float32 (N, 3, size_px, size_px), ImageNet-standardised, masked background 0; float32 masks (N, size, size).
    """
    images, masks = fit_crops(store, settings, size_px, stain)
    images = (images.astype(np.float32) / 255 - MEAN) / STD
    if settings["mask_background"]:
        images *= masks[..., None]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), masks


def fit_crops(store: CropStore, settings: Mapping, size_px: int, stain: str) -> tuple[np.ndarray, np.ndarray]:
    """The crops of one slide at one size and in one stain (none | reinhard | macenko).

    settings: `box` (rescale to the glomerulus' bounding box).
    Returns: uint8 (N, size_px, size_px, 3), float32 masks (N, size_px, size_px) from 0 to 1.
    """
    masks = store.masks
    images = normalise(store.images, masks, stain)
    pairs = [_fit(image, mask, size_px, settings["box"]) for image, mask in zip(images, masks, strict=True)]
    if not pairs:
        return np.zeros((0, size_px, size_px, 3), np.uint8), np.zeros((0, size_px, size_px), np.float32)
    images, masks = (np.stack(part) for part in zip(*pairs, strict=True))
    return images, masks


def _fit(image: np.ndarray, mask: np.ndarray, size: int, box: bool) -> tuple[np.ndarray, np.ndarray]:
    if box and mask.any():
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        # the square around the glomerulus; outside the crop the edge goes on, which masking then hides
        side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
        centre = (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2
    else:
        side, centre = max(mask.shape), (mask.shape[1] / 2, mask.shape[0] / 2)
    zoom = side / size
    offset = [middle - side / 2 + 0.5 * zoom - 0.5 for middle in centre]
    matrix = np.array([[zoom, 0, offset[0]], [0, zoom, offset[1]]])
    if zoom > 1:
        # warping does not average: blur first by what is lost
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * zoom)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return image, cv2.warpAffine(mask.astype(np.float32), matrix, (size, size), flags=flags)


def orientation(batch: torch.Tensor, number: int) -> torch.Tensor:
    """One of the eight ways to lay a square: `number` 0 to 7; batch (..., h, w)."""
    batch = batch.rot90(number % 4, (-2, -1))
    return batch.flip(-1) if number >= 4 else batch


def to_rgb(images: torch.Tensor) -> torch.Tensor:
    """What `prepare` standardised, (N, 3, h, w), back to 0..1."""
    mean, std = (images.new_tensor(part)[:, None, None] for part in (MEAN, STD))
    return images * std + mean
