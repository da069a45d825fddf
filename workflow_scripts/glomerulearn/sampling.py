"""Which windows a segmenter sees: as many around glomeruli as wanted, the rest from tissue, every slide in turn."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from glomerulearn.augmentation import change_colours, paste_glomerulus, random_view
from glomerulearn.errors import InputError
from glomerulearn.patches import PatchStore
from glomerulearn.typical_size import enlargement, outlined_um, usual_um

log = logging.getLogger(__name__)

_CACHE_PATCHES = 64  # of each slide that is watched: all are open together

Slide = tuple[Path, Path]  # its patch store and its outlines


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (..., h, w, 3) -> float32 (..., 3, h, w), 0..255 mapped to -1..1; colours stay side by side in memory."""
    return torch.from_numpy(images).movedim(-1, -3).float().div_(127.5).sub_(1)


def paired(patches: Sequence[Path], outlines: Sequence[Path]) -> list[Slide]:
    """The slides of a rule's two lists of files."""
    return list(zip(map(Path, patches), map(Path, outlines), strict=True))


def usable(slides: Sequence[Slide], split: str) -> list[Slide]:
    """The slides that have patches and outlines; the others are named in the log.

    Raises: InputError when there is none, or no glomerulus on any of them: then finding nothing would be right.
    """
    kept, outlined = [], 0
    for slide in slides:
        store = PatchStore(*slide)
        if store.usable and store.annotated:
            kept.append(slide)
            untiled = store.untiled
            outlined += len(store.outlines) - untiled
            if untiled:
                log.warning("slide %s: %d outlined glomeruli lie where no tissue was found", store.slide, untiled)
        else:
            log.warning("%s slide %s is left out: %s", split, store.slide, store.why_unscored)
    if not kept:
        raise InputError(
            f"no usable slide with outlines in split `{split}` ({len(slides)} in the sheet); see results/qc/slides.tsv, "
            f"and give at least one slide `split` = {split} and an `annotation` in the slide sheet"
        )
    if not outlined:
        raise InputError(
            f"the {split} slides hold not one outlined glomerulus where tissue was found; check `annotation` and `split` in the "
            "sheet, or, in cross-validation, ask for fewer folds"
        )
    return kept


class RandomWindows(Dataset):
    """Augmented windows without end from the training slides, `length` to an epoch.

    A share `glomerulus_share` has a glomerulus in it, the rest is tissue anywhere. A slide is drawn first (with the square
    root of its tissue as weight, so that a large slide does not drown a small one), then its glomerulus; but for a share
    `class_balance` the label is drawn first, each as often, so that rare ones are seen. With the chance `paste` a
    glomerulus of another window, its label drawn in that way, is laid into the window.
    labelled: whether labels are told apart, or all glomeruli are 1. With `same_size` every slide is enlarged so that its
    glomeruli are `usual_um` wide, as is typical of all.
    Items: uint8 (size, size, 3) and int64 (size, size); reproducible from (seed, epoch, place in it). Item i is of epoch
    i // length, so that worker processes live on from epoch to epoch.
    """

    def __init__(
        self, slides: Sequence[Slide], size: int, length: int, settings: Mapping, seed: int, labelled: bool = False
    ):
        normalise = settings["normalise"]
        self.stores = [PatchStore(*slide, max(64, 4096 // len(slides)), normalise) for slide in slides]
        self.size, self.length, self.settings, self.seed = size, length, settings, seed
        self.labelled = labelled
        self.usual_um = usual_um(self.stores) if settings["same_size"] else None
        self.enlarged = [enlargement(outlined_um(store), self.usual_um) for store in self.stores]
        if settings["same_size"]:
            shown = ", ".join(f"{store.slide} {own:.2f}" for store, own in zip(self.stores, self.enlarged, strict=True))
            usual = f"{self.usual_um:.0f} um" if self.usual_um else "not known: no slide has enough of them outlined"
            log.info("typical width of a glomerulus: %s; slides are seen so many times as large: %s", usual, shown)
        weights = np.sqrt([len(store.grid) for store in self.stores])
        self.weights = weights / weights.sum()
        self.glomeruli = [glomerulus_centres(store) for store in self.stores]
        places = defaultdict(list)
        for which, store in enumerate(self.stores):
            for number, outline in enumerate(store.outlines):
                places[outline.label].append((which, number))
        self.by_label = [places[label] for label in sorted(places)]

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, *divmod(index, self.length)))
        which, centre = self._place(rng)
        image, label = self._view(which, centre, rng)
        if self.by_label and rng.random() < self.settings["paste"]:
            image, label = paste_glomerulus(image, label, *self._view(*self._glomerulus_of_any_label(rng), rng), rng)
        image = change_colours(image, self.settings["augmentation"], rng)
        return image, label.astype(np.int64) if self.labelled else (label > 0).astype(np.int64)

    def _place(self, rng) -> tuple[int, np.ndarray]:
        """Which store, and where in it (x, y)."""
        which = rng.choice(len(self.stores), p=self.weights)
        store, centres = self.stores[which], self.glomeruli[which]
        if rng.random() >= self.settings["glomerulus_share"]:
            cell = store.grid[rng.integers(len(store.grid))]
            return which, (cell + rng.random(2)) * store.patch_size
        if rng.random() < self.settings["class_balance"]:
            which, centre = self._glomerulus_of_any_label(rng)
        elif len(centres):
            centre = centres[rng.integers(len(centres))]
        else:
            cell = store.grid[rng.integers(len(store.grid))]
            return which, (cell + rng.random(2)) * store.patch_size
        # anywhere in the window, not only in its middle
        return which, centre + rng.uniform(-0.4, 0.4, 2) * self.size / self.enlarged[which]

    def _glomerulus_of_any_label(self, rng) -> tuple[int, np.ndarray]:
        places = self.by_label[rng.integers(len(self.by_label))]
        which, number = places[rng.integers(len(places))]
        return which, self.glomeruli[which][number]

    def _view(self, which: int, centre: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
        store, augmentation = self.stores[which], self.settings["augmentation"]
        # as many of the slide's pixels as a window shows of them
        own = {
            "scale": [each / self.enlarged[which] for each in augmentation["scale"]],
            "elastic_px": augmentation["elastic_px"] / self.enlarged[which],
        }
        return random_view(store.window, store.label_window, centre, self.size, augmentation | own, rng)


class EpochSampler(Sampler):
    """The indices of one epoch of `RandomWindows`, or this process's share of them: set `epoch`, then iterate."""

    def __init__(self, length: int, rank: int = 0, processes: int = 1):
        self.length, self.rank, self.processes, self.epoch = length, rank, processes, 0

    def __len__(self) -> int:
        return self.length // self.processes

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.length + self.rank
        return iter(range(first, first + len(self) * self.processes, self.processes))


class GridWindows(Dataset):
    """All tissue of some slides once, as it lies: for watching training on the validation slides.

    usual_um: typical diameter of a glomerulus that slides are enlarged or reduced to; None = as they are, patch by patch.
    Items: as `RandomWindows`'s, as large as a stored patch.
    """

    def __init__(
        self,
        slides: Sequence[Slide],
        labelled: bool = False,
        normalise: bool = False,
        usual_um: float | None = None,
    ):
        self.labelled = labelled
        self.items = []
        for slide in slides:
            store = PatchStore(*slide, _CACHE_PATCHES, normalise)
            side = round(store.patch_size / enlargement(outlined_um(store), usual_um))
            self.items += [(store, x, y, side) for x, y in tissue_windows(store, side, side)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        store, x, y, side = self.items[index]
        wanted = store.patch_size, store.patch_size
        smooth = cv2.INTER_AREA if side > store.patch_size else cv2.INTER_LINEAR
        image = cv2.resize(store.window(x, y, side), wanted, interpolation=smooth)
        label = cv2.resize(store.label_window(x, y, side), wanted, interpolation=cv2.INTER_NEAREST_EXACT)
        return image, (label if self.labelled else label > 0).astype(np.int64)


def tissue_windows(store: PatchStore, size: int, stride: int) -> Iterator[tuple[int, int]]:
    """Top-left corners (x, y) of the windows on a regular grid that touch a stored patch, row by row."""
    width, height = store.canvas
    present = {(int(column), int(row)) for column, row in store.grid}
    patch = store.patch_size
    # the grid starts outside by half the overlap, so that the slide's edge gets as many views as its middle
    first = -(size - stride) // 2
    for y in range(first, height, stride):
        rows = range(max(0, y) // patch, (min(y + size, height) - 1) // patch + 1)
        for x in range(first, width, stride):
            columns = range(max(0, x) // patch, (min(x + size, width) - 1) // patch + 1)
            if any((column, row) in present for row in rows for column in columns):
                yield x, y


def glomerulus_centres(store: PatchStore) -> np.ndarray:
    """Centres of the outlined glomeruli in store pixels: float (n, 2), x and y, in the order of the outlines."""
    centres = [outline.polygon.centroid.coords[0] for outline in store.outlines]
    return np.array(centres).reshape(-1, 2) / store.scale if centres else np.zeros((0, 2))
