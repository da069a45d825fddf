"""Where on a slide is tissue? Stain-agnostic: anything that absorbs light or has colour, on bright glass."""

import cv2
import numpy as np

MPP = 16.0  # tissue is searched at this resolution (um per pixel)
MIN_OPTICAL_DENSITY = 0.045  # below this even pale silver or trichrome is not told from glass
MAX_OPTICAL_DENSITY = 0.25  # above this everything is tissue, whatever Otsu says of a slide full of it
BLACK = 12  # no stain is as dark as this over a whole pixel of `MPP`
MIN_WHITE = 215  # a thumbnail without any glass must not take its palest tissue for white


def tissue_mask(thumbnail: np.ndarray) -> np.ndarray:
    """Tissue in a thumbnail at `MPP`: uint8 (h, w, 3) -> bool (h, w).

    The slide's own glass (its brightest 5 %, at least `MIN_WHITE`) is the white point. Otsu's threshold (1979) on optical
    density, kept within absolute bounds so that a slide of glass only, or of tissue only, is not cut in two.
    """
    white = [max(_percentile(thumbnail[..., channel], 95), MIN_WHITE) for channel in range(3)]
    # optical density 0 to 1 as 0 to 255: a whole slide's thumbnail takes no more memory than itself
    density, brightest = (np.zeros(thumbnail.shape[:2], np.uint8) for _ in range(2))
    for channel, own_white in enumerate(white):
        values = np.ascontiguousarray(thumbnail[..., channel])
        table = np.clip(-np.log10((np.arange(256) + 1) / (own_white + 1)), 0, 1) * 255
        # the most absorbing channel: pale stains absorb in one channel only
        cv2.max(density, cv2.LUT(values, np.round(table).astype(np.uint8)), density)
        cv2.max(brightest, values, brightest)
    # padding of exports, not tissue
    density[brightest < BLACK] = 0
    density = cv2.GaussianBlur(density, (0, 0), 1.0)
    otsu = cv2.threshold(density, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0] / 255
    # half of Otsu: a lumen-rich cortex is paler than the mean of tissue and glass
    mask = density > np.clip(otsu / 2, MIN_OPTICAL_DENSITY, MAX_OPTICAL_DENSITY) * 255
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).astype(bool)


def _percentile(values: np.ndarray, share: float) -> int:
    counts = np.cumsum(np.bincount(values.ravel(), minlength=256))
    return int(np.searchsorted(counts, share / 100 * counts[-1]))
