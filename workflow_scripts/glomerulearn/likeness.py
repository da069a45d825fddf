"""Does a patch look like the slide it was cut from? Tells damage that the decoder does not stumble over."""

from collections.abc import Mapping

import cv2
import numpy as np

from glomerulearn import tissue
from glomerulearn.slides import Slide, area_average

_LOOK_UM = 64.0  # patches and overview are compared as mosaics of about this


class Likeness:
    """Finds patches that decode without a fault but into something else than the overview shows.

    A JPEG tile with a few wrong bytes often does. The overview tells when it comes from another level of the file, whose
    bytes are others. How well levels agree differs between scanners, so a patch must stand out among its own slide's.
    """

    def __init__(self, slide: Slide, overview: np.ndarray, unreadable: np.ndarray, settings: Mapping):
        self._differences: dict[int, float] = {}
        self._expected = None
        if slide.level_at(settings["mpp"]) == slide.level_at(tissue.MPP):
            return
        side_um = settings["patch_size_px"] * settings["mpp"]
        self._count = max(1, round(side_um / _LOOK_UM))
        step = side_um / self._count / tissue.MPP
        # parts of the mosaic that lie on the slide as a whole
        rows, columns = (
            int(side / tissue.MPP / step) for side in (slide.height_px * slide.mpp, slide.width_px * slide.mpp)
        )
        if rows and columns:
            self._expected = _mosaic(overview, step, rows, columns).astype(np.int16)
            self._known = np.ones((rows, columns), bool)
            if unreadable.any():
                hidden = np.repeat(unreadable[..., None].astype(np.uint8) * 255, 3, axis=2)
                self._known = _mosaic(hidden, step, rows, columns).max(axis=2) == 0

    def note(self, index: int, cell: np.ndarray, image: np.ndarray) -> None:
        """Compare the patch in grid cell (column, row)."""
        if self._expected is None:
            return
        left, top = cell * self._count
        here = slice(top, top + self._count), slice(left, left + self._count)
        expected, known = self._expected[here], self._known[here]
        # 16 x 16 pixels are enough for a mean
        every = max(1, len(image) // self._count // 16)
        found = cv2.resize(image[::every, ::every], (self._count, self._count), interpolation=cv2.INTER_AREA)
        difference = np.abs(found[: expected.shape[0], : expected.shape[1]] - expected).mean(axis=2)
        self._differences[index] = float(difference[known].max(initial=0))

    def garbled(self) -> list[int]:
        """Patches of which some part differs by more than 20 grey levels, and five times what is usual on the slide."""
        if not self._differences:
            return []
        limit = max(20.0, 5 * float(np.median(list(self._differences.values()))))
        return sorted(index for index, difference in self._differences.items() if difference > limit)


def _mosaic(image: np.ndarray, step: float, rows: int, columns: int, band: int = 64) -> np.ndarray:
    """Means of squares of `step` pixels, made in bands of rows so that no copy of the whole in floats is needed."""
    bands = []
    for row in range(0, rows, band):
        top = int(row * step)
        bottom = int(np.ceil((row + band) * step)) + 1
        here = (row * step - top, step, min(band, rows - row))
        bands.append(area_average(image[top:bottom], here, (0.0, step, columns)))
    return np.concatenate(bands)
