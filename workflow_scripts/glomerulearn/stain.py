"""Take the laboratory's stain out of a slide's crops, so that what is left is the tissue."""

import logging

import cv2
import numpy as np

log = logging.getLogger(__name__)

# what every slide's glomeruli are brought to: mean and standard deviation of L*, a*, b* of a well-stained PAS slide
TARGET_MEAN = np.array([62.0, 22.0, -12.0])
TARGET_STD = np.array([14.0, 8.0, 7.0])
_MIN_PIXELS = 500  # fewer glomerulus pixels than this on a slide say nothing of its stain


def normalise(images: np.ndarray, masks: np.ndarray, method: str) -> np.ndarray:
    """Normalise the stain of one slide's crops together; statistics come from the glomerulus pixels only.

    images: uint8 (N, h, w, 3); masks: bool (N, h, w); method: `none`, `reinhard` (Reinhard et al. 2001: mean and spread
    in CIELAB) or `macenko` (Macenko et al. 2009, through torchstain). Where Macenko's estimate fails, Reinhard's is used
    and the log says so.
    """
    if method == "none" or not len(images):
        return images
    if masks.sum() < _MIN_PIXELS:
        log.warning("only %d glomerulus pixels: the stain is left as it is", masks.sum())
        return images
    if method == "macenko":
        normalised = _macenko(images, masks)
        if normalised is not None:
            return normalised
        log.warning("Macenko's stain estimate failed; Reinhard's is used for this slide")
    return _reinhard(images, masks)


def _reinhard(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    # image by image: a slide of a thousand glomeruli in floats is larger than a small machine's memory
    sums = np.zeros((3, 3))
    for image, mask in zip(images, masks, strict=True):
        pixels = _to_lab(image)[mask].astype(np.float64)
        sums += [np.full(3, len(pixels)), pixels.sum(0), (pixels**2).sum(0)]
    mean = sums[1] / sums[0]
    spread = np.sqrt(np.maximum(sums[2] / sums[0] - mean**2, 0)) + 1e-6
    factor, offset = (
        (TARGET_STD / spread).astype(np.float32),
        (TARGET_MEAN - mean / spread * TARGET_STD).astype(np.float32),
    )
    return np.stack([_to_rgb(_to_lab(image) * factor + offset) for image in images])


def _to_lab(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _to_rgb(lab: np.ndarray) -> np.ndarray:
    lab[..., 0] = np.clip(lab[..., 0], 0, 100)
    # colours outside the gamut are clipped
    return np.round(np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1) * 255).astype(np.uint8)


def _macenko(images: np.ndarray, masks: np.ndarray) -> np.ndarray | None:
    from torchstain.numpy.normalizers import NumpyMacenkoNormalizer

    # estimated on glomerulus pixels only, applied to all: torchstain does both on one image, so hide the rest as glass
    shape = images.shape
    shown = np.where(masks[..., None], images, 255).reshape(-1, shape[2], 3)
    try:
        result = np.asarray(NumpyMacenkoNormalizer().normalize(shown, stains=False)[0]).reshape(shape)
    except (np.linalg.LinAlgError, ValueError, IndexError):
        return None
    return result.astype(np.uint8) if np.isfinite(result).all() and result[masks].std() > 1 else None
