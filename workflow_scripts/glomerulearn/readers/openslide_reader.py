"""Every format that OpenSlide opens, and the reference for all others."""

import threading
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from glomerulearn.errors import DamagedRegion, InputError

# outside this range a stated mpp is an image's 72 dpi, not a microscope's
PLAUSIBLE_MPP = (0.02, 10.0)
_BOUNDS = ("openslide.bounds-x", "openslide.bounds-y", "openslide.bounds-width", "openslide.bounds-height")
_OFFSETS = ("hamamatsu.XOffsetFromSlideCentre", "hamamatsu.YOffsetFromSlideCentre")


class OpenSlideReader:
    """A slide through OpenSlide. Where the file states the bounds of what was scanned (MIRAX), they are the image.

    QuPath crops to the same bounds, so that outlines fit.
    Raises: InputError when OpenSlide cannot open the file.
    """

    name = "openslide"
    shrinks = (1,)

    def __init__(self, path: Path):
        self.path = path
        self._threads = threading.local()
        handle = self._handle()
        self.properties = dict(handle.properties)
        self.vendor = self.properties.get("openslide.vendor", "unknown")
        self.notes: list[str] = []
        left, top, width, height = self._bounds(handle.dimensions)
        self._origin = left, top
        self.sizes = []
        self._downsamples = []
        for size in handle.level_dimensions:
            # openslide states the mean downsample of both axes; the true one differs per axis by rounding
            down = handle.dimensions[0] / size[0], handle.dimensions[1] / size[1]
            self._downsamples.append(down)
            self.sizes.append((max(1, round(width / down[0])), max(1, round(height / down[1]))))
        self.sizes[0] = width, height
        self.stated_mpp = self._mpp()
        self.centre_nm = tuple(float(self.properties[key]) for key in _OFFSETS) if self._has(_OFFSETS) else None
        background = self.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "FFFFFF")
        self.background = tuple(bytes.fromhex(background))

    def region(self, level: int, x: int, y: int, width: int, height: int, shrink: int = 1) -> np.ndarray:
        down_x, down_y = self._downsamples[level]
        corner = round(x * down_x) + self._origin[0], round(y * down_y) + self._origin[1]
        try:
            rgba = self._handle().read_region(corner, level, (width, height))
        except openslide.OpenSlideError as error:
            # openslide refuses every later read of a handle that has failed once
            self._threads.handle.close()
            del self._threads.handle
            raise DamagedRegion(f"{self.path}: {error}") from error
        alpha = rgba.getchannel("A")
        if alpha.getextrema() == (255, 255):
            image = np.asarray(rgba.convert("RGB"))
        else:
            canvas = Image.new("RGB", (width, height), self.background)
            canvas.paste(rgba, mask=alpha)
            image = np.array(canvas)
        return self._outside_is_background(image, level, x, y)

    def close(self) -> None:
        handle = self._threads.__dict__.pop("handle", None)
        if handle is not None:
            handle.close()

    def _handle(self) -> openslide.OpenSlide:
        # one handle per thread: a failed read kills the handle, and must not kill another thread's
        if not hasattr(self._threads, "handle"):
            try:
                self._threads.handle = openslide.OpenSlide(self.path)
            except openslide.OpenSlideError as error:
                raise InputError(f"OpenSlide cannot open this file ({error})") from error
        return self._threads.handle

    def _has(self, keys) -> bool:
        return all(key in self.properties for key in keys)

    def _bounds(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        if not self._has(_BOUNDS):
            return 0, 0, *size
        left, top, width, height = (int(self.properties[key]) for key in _BOUNDS)
        if (left, top, width, height) != (0, 0, *size):
            self.notes.append(
                f"only the scanned {width} x {height} px at ({left}, {top}) of {size[0]} x {size[1]} are used, as QuPath does"
            )
        return left, top, width, height

    def _mpp(self) -> float | None:
        try:
            values = [float(self.properties[key]) for key in ("openslide.mpp-x", "openslide.mpp-y")]
        except (KeyError, ValueError):
            return None
        mpp = float(np.mean(values))
        if not PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1]:
            self.notes.append(f"the file states {mpp:.4g} um per pixel, which no microscope has; it does not count")
            return None
        return mpp

    def _outside_is_background(self, image: np.ndarray, level: int, x: int, y: int) -> np.ndarray:
        """Beyond the bounds there may be pixels in the file; they are not this image's."""
        height, width = image.shape[:2]
        columns, rows = self.sizes[level]
        if self._origin == (0, 0) or (x >= 0 and y >= 0 and x + width <= columns and y + height <= rows):
            return image
        canvas = np.full_like(image, self.background)
        inside = slice(max(-y, 0), max(rows - y, 0)), slice(max(-x, 0), max(columns - x, 0))
        canvas[inside] = image[inside]
        return canvas
