"""All crops of the reference slides in memory, as networks that are trained on them take them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from glomerulearn.crops import CropStore
from glomerulearn.errors import InputError
from glomerulearn.preparation import prepare


class CohortCrops(NamedTuple):
    """images: float32 (S * N, 3, h, w), all N crops in the first stain, then all in the second; masks: (S * N, h, w).

    slide: of each image (S * N,); slides: their names.
    """

    images: torch.Tensor
    masks: torch.Tensor
    slide: np.ndarray
    slides: list[str]


def load_cohort(paths: Sequence[Path], pixels: Mapping, size_px: int) -> CohortCrops:
    """Prepare the crops of some slides. Raises: InputError where there are fewer than two."""
    stores = [store for store in map(CropStore, paths) if len(store)]
    total = sum(len(store) for store in stores)
    if total < 2:
        raise InputError(f"{total} glomeruli on the {len(paths)} reference slides: too few to train a network on")
    parts = [prepare(store, pixels, size_px, stain) for stain in pixels["stain"] for store in stores]
    images, masks = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
    slide = np.repeat([store.slide for store in stores], [len(store) for store in stores])
    return CohortCrops(images, masks, np.tile(slide, len(pixels["stain"])), [store.slide for store in stores])
