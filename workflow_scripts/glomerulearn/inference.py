"""Run a segmenter over a whole slide and stitch its windows into one map of glomerulus probability."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from glomerulearn.errors import InputError
from glomerulearn.models import autocast, precision_of
from glomerulearn.patches import PatchStore
from glomerulearn.sampling import tissue_windows, to_tensor


def infer_slide(
    model: nn.Module,
    facts: Mapping,
    store: PatchStore,
    settings: Mapping,
    device: torch.device,
    progress=iter,
    enlarged: float = 1.0,
) -> np.ndarray:
    """Probability of glomerulus over the slide at the store's mpp: uint8 (height, width), 255 = certain.

    settings: `window_px`, `overlap_px`, `batch`, `flips` (average over four mirror images), `zooms` (how much windows are
    enlarged before the network sees them, because one that trained on large glomeruli overlooks the small scars of another
    laboratory; the mean of all counts). enlarged: how much all of them are enlarged beyond that, so that the slide's
    glomeruli have the usual size (`typical_size`).
    Windows are read where the slide has tissue, their predictions added with weights that fall off towards the window's
    border and divided by the sum of the weights. Everything else is 0.
    Raises: InputError when the model was trained at another mpp than the store's.
    """
    if not store.usable:
        return np.zeros((0, 0), np.uint8)
    if abs(facts["mpp"] / store.mpp - 1) > 1e-6:
        raise InputError(
            f"{store.path}: patches at {store.mpp} um/px, but the segmenter was trained at {facts['mpp']} um/px; "
            "give both the same `tiling: mpp`"
        )
    width, height = store.canvas
    probability = np.zeros((height, width), np.float32)
    for zoom in settings["zooms"]:
        probability += _stitched(model, store, settings, zoom * enlarged, device, precision_of(facts), progress)
    return np.round(probability * (255 / len(settings["zooms"]))).astype(np.uint8)


def _stitched(
    model: nn.Module, store: PatchStore, settings: Mapping, zoom: float, device, precision: str, progress
) -> np.ndarray:
    """Probability of glomerulus as seen at one zoom: float32 (height, width)."""
    size, overlap = window_in_store_px(settings, zoom)
    width, height = store.canvas
    total = np.zeros((height, width), np.float32)
    weight = np.zeros((height, width), np.float32)
    kernel = ramp(size, overlap)
    windows = list(tissue_windows(store, size, size - overlap))
    starts = range(0, len(windows), settings["batch"])
    for start in progress(starts):
        places = windows[start : start + settings["batch"]]
        images = to_tensor(np.stack([store.window(x, y, size, size) for x, y in places]))
        seen = predict_enlarged(model, images.to(device), settings["window_px"], settings["flips"], precision)
        for (x, y), probability in zip(places, seen.cpu().numpy(), strict=True):
            top, left = max(y, 0), max(x, 0)
            bottom, right = min(y + size, height), min(x + size, width)
            inside = slice(top - y, bottom - y), slice(left - x, right - x)
            total[top:bottom, left:right] += probability[inside] * kernel[inside]
            weight[top:bottom, left:right] += kernel[inside]
    return np.divide(total, weight, out=total, where=weight > 0)


def window_in_store_px(settings: Mapping, zoom: float) -> tuple[int, int]:
    """Side and overlap of the windows in pixels of the patch store; `window_px` and `overlap_px` are what the network sees."""
    return round(settings["window_px"] / zoom), round(settings["overlap_px"] / zoom)


def predict_enlarged(
    model: nn.Module, images: torch.Tensor, size_px: int, flips: bool, precision: str = "auto"
) -> torch.Tensor:
    """As `predict`, but of the images made `size_px` wide; probabilities have the size that the images had."""
    side = images.shape[-1]
    if side == size_px:
        return predict(model, images, flips, precision)
    planes = images.contiguous()  # colours apart: a CPU resizes them in two thirds of the time
    resized = nn.functional.interpolate(planes, (size_px, size_px), mode="bicubic", antialias=side > size_px)
    probability = predict(model, resized.clamp_(-1, 1), flips, precision)[:, None]
    return nn.functional.interpolate(probability, (side, side), mode="bilinear", antialias=True)[:, 0]


@torch.no_grad()
def predict(model: nn.Module, images: torch.Tensor, flips: bool, precision: str = "auto") -> torch.Tensor:
    """Probability of glomerulus (N, h, w) for images (N, 3, h, w); with `flips`, the mean over four mirror images.

    precision: as `autocast`'s.
    """
    mirrors = ([], [2], [3], [2, 3]) if flips else ([],)
    result = 0
    for axes in mirrors:
        with autocast(precision, images.device):
            logits = model(images.flip(axes).contiguous(memory_format=torch.channels_last))
        result = result + (1 - logits.float().softmax(1)[:, :1]).flip(axes)
    return result[:, 0] / len(mirrors)


def ramp(size: int, overlap: int) -> np.ndarray:
    """Weights (size, size): 1 in the middle, falling linearly to almost 0 over the overlap."""
    line = np.minimum(np.arange(size) + 1, np.arange(size)[::-1] + 1) / max(1, overlap)
    line = np.minimum(line, 1).astype(np.float32)
    return np.outer(line, line)
