"""Which windows a segmenter sees: as many around glomeruli as wanted, the rest from tissue, every slide in turn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from glomerulearn.augmentation import random_view
from glomerulearn.patches import PatchStore


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (..., h, w, 3) -> float32 (..., 3, h, w), 0..255 mapped to -1..1."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3))).float().div_(127.5).sub_(1)


class RandomWindows(Dataset):
    """`length` augmented windows per epoch from the patch stores of the training slides.

    A slide is drawn first (with the square root of its tissue as weight, so that a large slide does not drown a small
    one), then a glomerulus or, for a share of 1 - `glomerulus_share`, any place with tissue.
    Items: uint8 (size, size, 3) and int64 (size, size); reproducible from (seed, epoch, index).
    """

    def __init__(self, paths: Sequence[Path], size: int, length: int, settings: Mapping, seed: int):
        self.stores = [PatchStore(path, cache_patches=max(64, 4096 // len(paths))) for path in paths]
        self.size, self.length, self.settings, self.seed, self.epoch = size, length, settings, seed, 0
        weights = np.sqrt([len(store.grid) for store in self.stores])
        self.weights = weights / weights.sum()
        self.glomeruli = [glomerulus_centres(store) for store in self.stores]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        which = rng.choice(len(self.stores), p=self.weights)
        store, centres = self.stores[which], self.glomeruli[which]
        if len(centres) and rng.random() < self.settings["glomerulus_share"]:
            # anywhere in the window, not only in its middle
            centre = centres[rng.integers(len(centres))] + rng.uniform(-0.4, 0.4, 2) * self.size
        else:
            cell = store.grid[rng.integers(len(store.grid))]
            centre = (cell + rng.random(2)) * store.patch_size
        image, label = random_view(
            store.window, store.label_window, centre, self.size, self.settings["augmentation"], rng
        )
        return image, (label > 0).astype(np.int64)


class GridWindows(Dataset):
    """Every stored patch of some slides once, as it is: for watching training on the validation slides."""

    def __init__(self, paths: Sequence[Path]):
        self.stores = [PatchStore(path) for path in paths]
        self.items = [(store, cell) for store in self.stores for cell in store.grid]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        store, (column, row) = self.items[index]
        size = store.patch_size
        place = int(column * size), int(row * size), size, size
        return store.window(*place), (store.label_window(*place) > 0).astype(np.int64)


def glomerulus_centres(store: PatchStore) -> np.ndarray:
    """Centres of the outlined glomeruli in store pixels: float (n, 2), x and y. Parts in two patches count twice."""
    centres = []
    size = store.patch_size
    for column, row in store.grid:
        drawn = (store.label_window(int(column * size), int(row * size), size, size) > 0).astype(np.uint8)
        found = cv2.connectedComponentsWithStats(drawn)[3][1:]
        centres.append(found + np.array([column, row]) * size)
    return np.concatenate(centres) if centres else np.zeros((0, 2))
