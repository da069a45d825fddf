"""Look again, closer, where a segmenter found a glomerulus or nearly did (coarse to fine, as Zhou et al. 2017 for the pancreas).

At the resolution that finds glomeruli on a whole slide, a faded scar and a pale spot look alike; a pathologist goes closer.
So a second network of the same kind sees windows of a finer resolution, read from the slide itself, and both count alike.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
import torch
from skimage import measure
from torch import nn

from glomerulearn.errors import DamagedRegion
from glomerulearn.glomeruli import find_glomeruli
from glomerulearn.inference import predict, ramp
from glomerulearn.models import precision_of
from glomerulearn.patches import PatchStore
from glomerulearn.sampling import to_tensor
from glomerulearn.slides import Slide

log = logging.getLogger(__name__)

# what is worth a second look: far less sure, smaller and more ragged than what counts in the end
_WORTH_IT = {
    "threshold": 0.1, "seed_threshold": 0.1, "min_diameter_um": 45.0, "min_solidity": 0.5, "split_waist": 0.6,
}  # fmt: skip
_MIDDLE = 0.8  # share of a window's side that a region may fill before it takes several
_SURE = 0.002  # probabilities count as if no surer than this, so that neither look overrules the other


def candidates(probability: np.ndarray, mpp: float) -> list:
    """The regions of a first look that deserve a second one: scikit-image's `regionprops`, in pixels of the map.

    probability: uint8 (h, w) at `mpp` um per pixel.
    """
    return measure.regionprops(find_glomeruli(probability, mpp, _WORTH_IT))


def read_window(slide: Slide, store: PatchStore, left: int, top: int, size_px: int, zoom: float) -> np.ndarray:
    """The window whose corner is the store's pixel (left, top), `zoom` times as fine, stained as the store's.

    A slide that was scanned more coarsely is enlarged: the network is trained on such, too, where there are any.
    Returns: uint8 (size_px, size_px, 3). Raises: DamagedRegion.
    """
    corner = left * store.scale, top * store.scale
    return store.in_its_stain(slide.read(*corner, size_px, size_px, store.mpp / zoom))


def look_again(
    model: nn.Module,
    facts: Mapping,
    probability: np.ndarray,
    store: PatchStore,
    slide: Slide,
    settings: Mapping,
    device: torch.device,
    progress=iter,
    enlarged: float = 1.0,
) -> np.ndarray:
    """What both looks say of a slide, the mean of their log-odds: uint8 (h, w); where no second one was taken, the first.

    probability: uint8 (h, w), what the first look says. facts: of the second: `zoom` (how many times finer than the store
    its windows are), `window_px` and `settings`, those of its training. settings: of the detection: `window_px`, `batch`,
    `flips`. enlarged: as `infer_slide`'s.
    A window that cannot be read is left as the first look saw it, and the log says so.
    """
    size = facts["window_px"]
    side = round(size / (facts["zoom"] * enlarged))
    zoom = size / side  # whole pixels of the store
    total, weight = np.zeros(probability.shape, np.float32), np.zeros(probability.shape, np.float32)
    kernel = ramp(side, side // 4)
    regions = candidates(probability, store.mpp)
    corners = [corner for region in regions for corner in window_corners(region.bbox, side)]
    precision = precision_of(facts)
    at_once = max(1, settings["batch"] * settings["window_px"] ** 2 // size**2)
    for start in progress(range(0, len(corners), at_once)):
        readable, images = _read(slide, store, corners[start : start + at_once], size, zoom)
        if not images:
            continue
        seen = predict(model, to_tensor(np.stack(images)).to(device), settings["flips"], precision)
        for (left, top), fine in zip(readable, seen.cpu().numpy(), strict=True):
            coarse = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)
            rows, columns = (slice(max(start, 0), max(start + side, 0)) for start in (top, left))
            height, width = total[rows, columns].shape  # less where the window reaches beyond the slide
            own_top, own_left = rows.start - top, columns.start - left
            own = slice(own_top, own_top + height), slice(own_left, own_left + width)
            total[rows, columns] += (coarse * kernel)[own]
            weight[rows, columns] += kernel[own]
    closer = np.divide(total, weight, out=total, where=weight > 0)
    both = 1 / (1 + np.exp((_log_odds(probability / np.float32(255)) + _log_odds(closer)) / -2))
    return np.where(weight > 0, np.round(both * 255).astype(np.uint8), probability)


def window_corners(box: Sequence[int], side: int) -> Iterator[tuple[int, int]]:
    """Top-left corners (x, y) of windows of `side` whose middles cover a box (top, left, bottom, right)."""
    tops, lefts = (_starts(low, high, side) for low, high in ((box[0], box[2]), (box[1], box[3])))
    return ((left, top) for top in tops for left in lefts)


def _starts(low: int, high: int, side: int) -> list[int]:
    beyond = max(0.0, high - low - _MIDDLE * side)
    count = int(np.ceil(beyond / (side / 2))) + 1
    return [round(start) for start in (low + high - side) / 2 + np.linspace(-beyond / 2, beyond / 2, count)]


def _read(
    slide: Slide, store: PatchStore, corners: Sequence[tuple[int, int]], size_px: int, zoom: float
) -> tuple[list, list]:
    """The corners of the windows that can be read, and the windows."""
    readable, images = [], []
    for left, top in corners:
        try:
            images.append(read_window(slide, store, left, top, size_px, zoom))
            readable.append((left, top))
        except DamagedRegion as error:
            log.warning("slide %s: no second look: %s", store.slide, error)
    return readable, images


def _log_odds(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, _SURE, 1 - _SURE)
    return np.log(clipped / (1 - clipped))
