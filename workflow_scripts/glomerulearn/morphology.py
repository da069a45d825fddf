"""What can be measured of a glomerulus without any training: structure, stain, shape; and an axis of sclerosis from it.

A glomerulus that scars fills with matrix: capillaries close and nuclei go, so that little is left that differs from its
surroundings. How much lightness varies within a glomerulus therefore tells sclerosis, whatever the stain.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from skimage import color

SIZE_PX = 224  # side of the box that a glomerulus fills when it is measured: scales below are relative to it

FEATURES = (
    "contrast",  # standard deviation of lightness L*
    "edges",  # mean gradient of L* (per px)
    "fine", "middle", "coarse",  # standard deviation of L* in bands around 2, 4 and 8 px (differences of Gaussians)
    "pale_share",  # L* above 80: capillary lumina, Bowman's space
    "space_share",  # the same within a tenth of the box of the outline, as a share of that rim: Bowman's space
    "nuclei_share",  # bluer than its own mean by a standard deviation, and darker than it
    "redness",  # mean of a*: eosin, PAS
    "pas_share",  # a* above 30, where a slide's glomeruli have 22 +- 8 in Reinhard's normalisation: matrix, in PAS
    "haematoxylin", "eosin",  # mean optical densities (Ruifrok, Johnston 2001)
    "circularity", "solidity",  # 4 pi area / perimeter squared; area / area of the convex hull
)  # fmt: skip
_STRUCTURE = ("contrast", "edges", "fine", "middle")  # what sclerosis takes away
_RIM_PX = 5


def measure(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Measure glomeruli that fill their box. images: uint8 (N, h, w, 3); masks: (N, h, w), above 0.5 = glomerulus.

    Returns: float32 (N, len(FEATURES)).
    """
    rows = [_measure_one(image, mask > 0.5) for image, mask in zip(images, masks, strict=True)]
    return np.array(rows, np.float32).reshape(-1, len(FEATURES))


def _measure_one(image: np.ndarray, mask: np.ndarray) -> list[float]:
    if not mask.any():
        return [0.0] * len(FEATURES)
    # the rim is as much background as glomerulus
    inner = cv2.erode(mask.astype(np.uint8), np.ones((_RIM_PX, _RIM_PX), np.uint8)) > 0
    inner = inner if inner.any() else mask
    depth = max(1, mask.shape[0] // 10)
    rim = inner & (cv2.erode(mask.astype(np.uint8), np.ones((2 * depth + 1,) * 2, np.uint8)) == 0)
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    light, red, blue = lab[..., 0], lab[..., 1], lab[..., 2]
    smooth = {sigma: cv2.GaussianBlur(light, (0, 0), sigma) for sigma in (1.5, 2, 4, 8, 16)}
    pale = smooth[1.5] > 80
    gradient = np.hypot(*(cv2.Sobel(smooth[1.5], cv2.CV_32F, *step) for step in ((1, 0), (0, 1))))
    bands = [(smooth[sigma] - smooth[2 * sigma])[inner].std() for sigma in (2, 4, 8)]
    nuclei = (blue < blue[inner].mean() - blue[inner].std()) & (light < light[inner].mean())
    dyes = color.rgb2hed(image[inner][None])[0]
    outline = max(cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
    area, hull = cv2.contourArea(outline), cv2.contourArea(cv2.convexHull(outline))
    return [
        light[inner].std(), gradient[inner].mean(), *bands, pale[inner].mean(), pale[rim].mean() if rim.any() else 0.0,
        nuclei[inner].mean(), red[inner].mean(), (red[inner] > 30).mean(), dyes[:, 0].mean(), dyes[:, 1].mean(),
        4 * np.pi * area / max(1.0, cv2.arcLength(outline, True)) ** 2, area / max(1.0, hull),
    ]  # fmt: skip


def axis_scale(features: np.ndarray) -> dict[str, list[float]]:
    """Mean and spread of what the axis is made of, over the reference glomeruli (N, len(FEATURES))."""
    chosen = features[:, [FEATURES.index(name) for name in _STRUCTURE]].astype(float)
    return {"mean": chosen.mean(0).tolist(), "spread": (chosen.std(0) + 1e-6).tolist()}


def sclerosis_axis(features: np.ndarray, scale: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Where each glomerulus lies between open (low) and scarred (high), without any label: float (N,).

    features: (N, len(FEATURES)); scale: `axis_scale` of the reference. The mean of how far contrast, edges, fine and middle
    structure lie below the reference's, in its standard deviations.
    """
    chosen = features[:, [FEATURES.index(name) for name in _STRUCTURE]]
    return -((chosen - np.array(scale["mean"])) / np.array(scale["spread"])).mean(1)
