"""Open a whole-slide image and read any part of it at a wanted resolution.

Coordinates: level-0 pixels (x, y), origin top left, unless a name says otherwise. `mpp` is micrometres per pixel.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from glomerulearn.errors import InputError

log = logging.getLogger(__name__)

MPP_CONFLICT = 0.05  # a sheet and a scanner that differ by more than this are worth a warning


class DamagedRegion(Exception):
    """A region of a slide cannot be decoded; the rest of the slide may still be good."""


@dataclass
class Slide:
    """An open slide: size at level 0 (px), mpp, where the mpp came from, and how to read it."""

    path: Path
    mpp: float
    mpp_origin: str
    _handle: openslide.OpenSlide = field(repr=False)

    @property
    def width_px(self) -> int:
        return self._handle.dimensions[0]

    @property
    def height_px(self) -> int:
        return self._handle.dimensions[1]

    @property
    def vendor(self) -> str:
        return self._handle.properties.get("openslide.vendor", "unknown")

    def size_at(self, mpp: float) -> tuple[int, int]:
        """Width and height (px) of the whole slide at `mpp`, rounded up so that nothing is cut off."""
        scale = mpp / self.mpp
        return int(np.ceil(self.width_px / scale)), int(np.ceil(self.height_px / scale))

    def read(self, x_px: float, y_px: float, width_px: int, height_px: int, mpp: float) -> np.ndarray:
        """Read `width_px` x `height_px` pixels at `mpp` whose top-left corner is (x_px, y_px) in level-0 pixels.

        The best level is read with a margin and resampled with antialiasing at the exact sub-pixel box, so that
        neighbouring regions join without a seam or a shift. Outside the slide, and where nothing was scanned, the
        slide's background colour (white if it names none) is returned.

        Returns: uint8 (height_px, width_px, 3), RGB.
        Raises: DamagedRegion where the file cannot be decoded.
        """
        scale = mpp / self.mpp
        level = self._handle.get_best_level_for_downsample(max(scale, 1.0) * 1.001)
        level_width, level_height = self._handle.level_dimensions[level]
        # openslide states the mean downsample of both axes; the true one differs per axis by rounding
        down_x, down_y = self.width_px / level_width, self.height_px / level_height
        left, top = x_px / down_x, y_px / down_y
        box_width, box_height = width_px * scale / down_x, height_px * scale / down_y
        margin = 2 * max(1, int(np.ceil(scale / down_x)))
        left_read, top_read = int(np.floor(left)) - margin, int(np.floor(top)) - margin
        read_size = (
            int(np.ceil(left + box_width)) + margin - left_read,
            int(np.ceil(top + box_height)) + margin - top_read,
        )
        region = self._region(round(left_read * down_x), round(top_read * down_y), level, read_size)
        if (left, top) == (left_read + margin, top_read + margin) and (box_width, box_height) == (width_px, height_px):
            return np.asarray(region)[margin : margin + height_px, margin : margin + width_px]
        box = (left - left_read, top - top_read, left - left_read + box_width, top - top_read + box_height)
        reducing = box_width > width_px
        resample = Image.Resampling.HAMMING if reducing else Image.Resampling.BILINEAR
        return np.asarray(region.resize((width_px, height_px), resample, box=box))

    def thumbnail(self, mpp: float) -> np.ndarray:
        """The whole slide at `mpp`: uint8 (height, width, 3)."""
        return self.read(0, 0, *self.size_at(mpp), mpp)

    def close(self) -> None:
        self._handle.close()

    def _region(self, x: int, y: int, level: int, size: tuple[int, int]) -> Image.Image:
        try:
            rgba = self._handle.read_region((x, y), level, size)
        except openslide.OpenSlideError as error:
            # openslide refuses every later read of a handle that has failed once
            self._handle.close()
            self._handle = openslide.OpenSlide(self.path)
            raise DamagedRegion(f"{self.path}: {error}") from error
        background = self._handle.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "FFFFFF")
        canvas = Image.new("RGB", size, f"#{background}")
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def open_slide(path: str | Path, mpp: float | None = None) -> Slide:
    """Open the slide at `path`; `mpp` (from the sheet) overrides what the file says.

    Raises: InputError when the file is missing, is no slide, or has no mpp and none is given.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such slide file; check the column `path` of the slide sheet")
    try:
        handle = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        size = path.stat().st_size
        raise InputError(
            f"{path}: OpenSlide cannot open this file of {size} bytes ({error}); it is damaged or no slide format. "
            "Copy it again from the scanner, or take its row out of the slide sheet"
        ) from error
    stated = _stated_mpp(handle)
    if mpp is None and stated is None:
        handle.close()
        raise InputError(
            f"{path}: the file states no resolution (mpp) and the slide sheet gives none; "
            "fill in the column `mpp` of its row in micrometres per pixel (a 20x scan has about 0.5, a 40x scan 0.25)"
        )
    if mpp is not None and stated is not None and abs(mpp / stated - 1) > MPP_CONFLICT:
        log.warning("%s: the sheet says mpp %.4g, the file says %.4g; the sheet's is used", path, mpp, stated)
    return Slide(path, mpp or stated, "sheet" if mpp else "metadata", handle)


def _stated_mpp(handle: openslide.OpenSlide) -> float | None:
    values = [handle.properties.get(name) for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)]
    if None in values or min(map(float, values)) <= 0:
        return None
    return float(np.mean([float(value) for value in values]))
