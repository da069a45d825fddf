"""Take the laboratory's stain out of a slide's crops, so that what is left is the tissue."""

import logging
import warnings

import cv2
import numpy as np

log = logging.getLogger(__name__)

# what every slide's glomeruli are brought to: mean and standard deviation of L*, a*, b* of a well-stained PAS slide
TARGET_MEAN = np.array([62.0, 22.0, -12.0])
TARGET_STD = np.array([14.0, 8.0, 7.0])
_MIN_PIXELS = 500  # fewer glomerulus pixels than this on a slide say nothing of its stain
# what Macenko's and Vahadane's methods bring slides to: optical density of each dye (rows: haematoxylin, the other) and the 99th
# percentile of its amount, as published with Macenko's method
_TARGET_DYES = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
_TARGET_AMOUNTS = np.array([1.9705, 1.0308])
_GLASS_DENSITY = 0.15  # pixels below are hardly stained, and tell no dye
_SAME_DYE = 0.995  # cosine above which two dyes are one
_FACTORED_PIXELS = 20_000  # dyes of a slide are the same in any so many of its pixels


def normalise(images: np.ndarray, masks: np.ndarray, method: str) -> np.ndarray:
    """Normalise the stain of one slide's crops together; statistics come from the glomerulus pixels only.

    images: uint8 (N, h, w, 3); masks: bool (N, h, w); method: `none`, `reinhard` (Reinhard et al. 2001: mean and spread
    in CIELAB), `macenko` (Macenko et al. 2009, through torchstain) or `vahadane` (Vahadane et al. 2016: sparse non-negative
    factors, through scikit-learn). Where the dyes of a slide cannot be told apart, Reinhard's is used and the log says so.
    """
    if method == "none" or not len(images):
        return images
    if masks.sum() < _MIN_PIXELS:
        log.warning("only %d glomerulus pixels: the stain is left as it is", masks.sum())
        return images
    if method != "reinhard":
        normalised = {"macenko": _macenko, "vahadane": _vahadane}[method](images, masks)
        if normalised is not None:
            return normalised
        log.warning("the dyes of this slide cannot be told apart by method %r; Reinhard's is used", method)
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


def _vahadane(images: np.ndarray, masks: np.ndarray) -> np.ndarray | None:
    from sklearn.decomposition import MiniBatchDictionaryLearning  # slow to import, and only this method needs it
    from sklearn.exceptions import ConvergenceWarning

    rng = np.random.default_rng(0)
    density = _density(images[masks])
    density = density[density.max(1) > _GLASS_DENSITY]
    if len(density) < _MIN_PIXELS:
        return None
    some = density[rng.choice(len(density), min(_FACTORED_PIXELS, len(density)), replace=False)]
    model = MiniBatchDictionaryLearning(
        2, alpha=0.1, fit_algorithm="cd", positive_code=True, positive_dict=True, batch_size=1024, random_state=0
    )
    with warnings.catch_warnings():
        # a batch that has not quite converged is one of many
        warnings.simplefilter("ignore", ConvergenceWarning)
        dyes = model.fit(some).components_
    # haematoxylin is the bluer one: it absorbs the most red
    dyes = dyes[np.argsort(-dyes[:, 0])]
    lengths = np.linalg.norm(dyes, axis=1)
    if lengths.min() < 1e-3 or dyes[0] @ dyes[1] / lengths.prod() > _SAME_DYE:
        return None
    dyes /= lengths[:, None]
    amounts = np.percentile(_amounts(some, dyes), 99, axis=0)
    if amounts.min() <= 0:
        return None
    # image by image, as above
    factor = _TARGET_AMOUNTS / amounts
    return np.stack([_redyed(image, dyes, factor) for image in images])


def _density(pixels: np.ndarray) -> np.ndarray:
    """Optical density (natural logarithm, glass 0) of pixels uint8 (..., 3)."""
    return -np.log((pixels.astype(np.float64) + 1) / 256)


def _amounts(density: np.ndarray, dyes: np.ndarray) -> np.ndarray:
    """The amount of each of two dyes (2, 3) in pixels (n, 3) by non-negative least squares: (n, 2).

    With two dyes it is exact to put a negative amount to 0 and fit the other alone.
    """
    both = density @ np.linalg.pinv(dyes)
    alone = np.maximum(density @ dyes.T, 0)  # the dyes have length 1
    both[:, 0], both[:, 1] = (
        np.where(both[:, 1] < 0, alone[:, 0], np.maximum(both[:, 0], 0)),
        np.where(both[:, 0] < 0, alone[:, 1], np.maximum(both[:, 1], 0)),
    )
    return both


def _redyed(image: np.ndarray, dyes: np.ndarray, factor: np.ndarray) -> np.ndarray:
    amounts = _amounts(_density(image.reshape(-1, 3)), dyes) * factor
    pixels = 256 * np.exp(-amounts @ _TARGET_DYES) - 1
    return np.round(np.clip(pixels, 0, 255)).astype(np.uint8).reshape(image.shape)
