"""Small pictures of glomeruli, for figures and pages."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from glomerulearn.crops import CropStore


def pictures(crops: Sequence[Path], wanted: set[str], side_px: int) -> dict[str, np.ndarray]:
    """Pictures of glomeruli with their outline: name -> uint8 (side_px, side_px, 3).

    crops: crop stores; wanted: names of glomeruli.
    """
    found = {}
    for path in crops:
        store = CropStore(path)
        for index, name in enumerate(store.records["glomerulus"]):
            if name in wanted:
                found[name] = _outlined(store.read("images", index), store.read("masks", index), side_px)
    return found


def _outlined(image: np.ndarray, mask: np.ndarray, side_px: int) -> np.ndarray:
    image = image.copy()
    if not mask.all():
        contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(image, contours, -1, (0, 0, 0), max(1, mask.shape[0] // 110))
    return cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA)
