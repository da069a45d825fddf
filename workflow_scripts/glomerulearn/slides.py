"""Open a whole-slide image and read any part of it at a wanted resolution.

Coordinates: level-0 pixels (x, y), origin top left, unless a name says otherwise. `mpp` is micrometres per pixel.
"""

import logging
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from scipy import sparse

from glomerulearn.errors import DamagedRegion, InputError
from glomerulearn.readers.jpeg_tiles import JpegTileReader, NotNative
from glomerulearn.readers.openslide_reader import OpenSlideReader
from glomerulearn.readers.plain import PlainReader, is_8_bit_rgb

log = logging.getLogger(__name__)

MPP_CONFLICT = 0.05  # a sheet and a scanner that differ by more than this are worth a warning
# an overview is decoded in blocks, so that memory does not grow with the slide: side in px of the level that is read
_OVERVIEW_BLOCK_PX = 2048
_SMALLEST_BLOCK_PX = 16  # of an overview; what is damaged is known as finely as this


@dataclass
class Slide:
    """An open slide: mpp, where the mpp came from, what the file itself states, and how to read it."""

    path: Path
    mpp: float
    mpp_origin: str  # `sheet` or `metadata`
    reader: OpenSlideReader | JpegTileReader | PlainReader = field(repr=False)

    @property
    def width_px(self) -> int:
        return self.reader.sizes[0][0]

    @property
    def height_px(self) -> int:
        return self.reader.sizes[0][1]

    def size_at(self, mpp: float) -> tuple[int, int]:
        """Width and height (px) of the whole slide at `mpp`, rounded up so that nothing is cut off."""
        scale = mpp / self.mpp
        # 1000.0000001 px are 1000
        return tuple(int(np.ceil(round(side / scale, 6))) for side in self.reader.sizes[0])

    def read(self, x_px: float, y_px: float, width_px: int, height_px: int, mpp: float) -> np.ndarray:
        """Read `width_px` x `height_px` pixels at `mpp` whose top-left corner is (x_px, y_px) in level-0 pixels.

        The level that is just fine enough is read. Reducing is averaging: every pixel is the mean of the area it covers,
        fractions of pixels included, so that neighbouring regions join without a seam or a shift; enlarging is
        bilinear. Outside the slide, and where nothing was scanned, lies the background's colour (white if none is named).

        Returns: uint8 (height_px, width_px, 3), RGB.
        Raises: DamagedRegion where the file cannot be decoded.
        """
        return self._read(x_px, y_px, width_px, height_px, mpp, ())

    def level_at(self, mpp: float) -> int:
        """The level that is read for `mpp`."""
        return self._level_for(mpp / self.mpp)[0]

    def overview(self, mpp: float) -> tuple[np.ndarray, np.ndarray]:
        """The whole slide at a coarse `mpp`, decoded in blocks: uint8 (h, w, 3), and bool (h, w) where it is unreadable.

        Single-level slides are reduced while they are decoded where the reader can, so pixels are not exact means.
        """
        width, height = self.size_at(mpp)
        scale = mpp / self.mpp
        level = self._level_for(scale)[0]
        block = max(16, int(_OVERVIEW_BLOCK_PX / (scale * self.reader.sizes[level][0] / self.width_px)))
        image = np.full((height, width, 3), 255, np.uint8)
        unreadable = np.zeros((height, width), bool)
        waiting = [
            (left, top, min(block, width - left), min(block, height - top))
            for top in range(0, height, block)
            for left in range(0, width, block)
        ]
        while waiting:
            left, top, *size = waiting.pop()
            target = slice(top, top + size[1]), slice(left, left + size[0])
            try:
                image[target] = self._read(left * scale, top * scale, *size, mpp, self.reader.shrinks)
            except DamagedRegion as error:
                if max(size) <= _SMALLEST_BLOCK_PX:
                    log.warning("overview: %s", error)
                    unreadable[target] = True
                else:
                    waiting += _quarters(left, top, *size)  # most of it may be good
        return image, unreadable

    def close(self) -> None:
        self.reader.close()

    def _level_for(self, scale: float) -> tuple[int, float]:
        """The coarsest level not coarser than `scale` level-0 pixels per pixel, and its downsample."""
        downs = [self.width_px / width for width, _ in self.reader.sizes]
        level = max(index for index, down in enumerate(downs) if down <= max(scale, 1.0) * 1.001)
        return level, downs[level]

    def _read(
        self, x_px: float, y_px: float, width_px: int, height_px: int, mpp: float, shrinks: tuple[int, ...]
    ) -> np.ndarray:
        scale = mpp / self.mpp
        level, down = self._level_for(scale)
        shrink = max((each for each in shrinks if each <= scale / down * 1.001), default=1)
        columns, rows = self.reader.sizes[level]
        down_x, down_y = self.width_px / columns * shrink, self.height_px / rows * shrink
        # a millionth of a pixel is rounding, and would cost the exact grid
        left, top = round(x_px / down_x, 6), round(y_px / down_y, 6)
        step_x, step_y = round(scale / down_x, 9), round(scale / down_y, 9)
        first_x, first_y = int(np.floor(left)), int(np.floor(top))
        enlarging = step_x < 1 or step_y < 1
        margin = 1 if enlarging else 0
        box = (
            first_x - margin,
            first_y - margin,
            int(np.ceil(round(left + width_px * step_x, 6))) - first_x + 2 * margin,
            int(np.ceil(round(top + height_px * step_y, 6))) - first_y + 2 * margin,
        )
        region = self.reader.region(level, *box, shrink)
        if (step_x, step_y, left, top) == (1, 1, first_x, first_y):
            return region
        offset_x, offset_y = left - box[0], top - box[1]
        if enlarging:
            matrix = np.array([[step_x, 0, offset_x + 0.5 * step_x - 0.5], [0, step_y, offset_y + 0.5 * step_y - 0.5]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            return cv2.warpAffine(region, matrix, (width_px, height_px), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        if (width_px * step_x, height_px * step_y) == box[2:] and step_x == int(step_x) and step_y == int(step_y):
            return cv2.resize(region, (width_px, height_px), interpolation=cv2.INTER_AREA)
        return area_average(region, (offset_y, step_y, height_px), (offset_x, step_x, width_px))

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _quarters(left: int, top: int, width: int, height: int) -> list[tuple[int, int, int, int]]:
    """A block (left, top, width, height) in four, or in two where it is one pixel thin."""
    columns, rows = ((0, side // 2, side) if side > 1 else (0, side) for side in (width, height))
    return [
        (left + x, top + y, right - x, bottom - y) for y, bottom in pairwise(rows) for x, right in pairwise(columns)
    ]


def area_average(image: np.ndarray, rows: tuple[float, float, int], columns: tuple[float, float, int]) -> np.ndarray:
    """Means over areas of fractional size and place: uint8 (h, w, 3) -> uint8 (count of rows, count of columns, 3).

    rows, columns: (start, step, count) in pixels of `image`, whose areas must reach into it.
    """
    height, width = image.shape[:2]
    down = (_weights(*rows, height) @ image.reshape(height, -1).astype(np.float32)).reshape(rows[2], width, 3)
    across = np.ascontiguousarray(down.transpose(1, 0, 2)).reshape(width, -1)
    mean = (_weights(*columns, width) @ across).reshape(columns[2], rows[2], 3)
    return np.ascontiguousarray((mean + 0.5).astype(np.uint8).transpose(1, 0, 2))


@lru_cache(maxsize=64)
def _weights(start: float, step: float, count: int, length: int) -> sparse.csr_matrix:
    """Share of each of `length` pixels in each of `count` areas [start + i step, start + (i + 1) step)."""
    edges = start + step * np.arange(count + 1)
    first, taps = np.floor(edges[:-1]).astype(int), int(np.ceil(step)) + 1
    pixels = first[:, None] + np.arange(taps)
    share = np.minimum(pixels + 1, edges[1:, None]) - np.maximum(pixels, edges[:-1, None])
    share = np.clip(share, 0, None) / step
    kept = (share > 1e-9) & (pixels < length)
    rows = np.broadcast_to(np.arange(count)[:, None], pixels.shape)
    matrix = sparse.csr_matrix((share[kept], (rows[kept], pixels[kept])), (count, length), np.float32)
    return sparse.diags_array(1 / np.asarray(matrix.sum(axis=1)).ravel(), dtype=np.float32) @ matrix


def open_slide(path: str | Path, mpp: float | None = None) -> Slide:
    """Open the slide or image at `path`; `mpp` (from the sheet) overrides what the file says.

    OpenSlide opens it, the native reader takes over where it yields the same pixels, and what OpenSlide does not open is
    tried as a plain image.
    Raises: InputError when the file is missing, is neither slide nor image, or has no mpp and none is given.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such slide file; check the column `path` of the slide sheet")
    try:
        reader = _reader(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); check its permissions and the disk it is on") from error
    stated = reader.stated_mpp
    if mpp is None and stated is None:
        notes = "".join(f" ({note})" for note in reader.notes)
        reader.close()
        raise InputError(
            f"{path}: the file states no resolution (mpp){notes} and the slide sheet gives none; "
            "fill in the column `mpp` of its row in micrometres per pixel (a 20x scan has about 0.5, a 40x scan 0.25)"
        )
    if mpp is not None and stated is not None and abs(mpp / stated - 1) > MPP_CONFLICT:
        log.warning("%s: the sheet says mpp %.4g, the file says %.4g; the sheet's is used", path, mpp, stated)
    return Slide(path, mpp or stated, "sheet" if mpp else "metadata", reader)


# what scanners write; such a file that OpenSlide refuses is damaged or lacks its companions, and no picture to be read
_SCANNER_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".vms", ".vmu", ".scn", ".bif", ".svslide")


def _reader(path: Path) -> OpenSlideReader | JpegTileReader | PlainReader:
    try:
        reference = OpenSlideReader(path)
    except InputError as error:
        advice = (
            f"This file of {path.stat().st_size} bytes is damaged or no slide format. Copy it again from the scanner (a .mrxs "
            "with the folder of the same name), or take its row out of the slide sheet"
        )
        if path.suffix.lower() in _SCANNER_SUFFIXES:
            raise InputError(f"{path}: {error}. {advice}") from error
        try:
            return PlainReader(path)
        except InputError as plain:
            raise InputError(f"{path}: {error}, nor is it a plain image: {plain}. {advice}") from error
    if reference.vendor == "generic-tiff" and not is_8_bit_rgb(path):
        # OpenSlide shows 16 bits by their upper half, and colours other than RGB not at all
        reference.close()
        try:
            return PlainReader(path)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    try:
        native = JpegTileReader(path, reference)
    except NotNative as reason:
        log.info("%s: read through OpenSlide (%s)", path, reason)
        return reference
    log.info("%s: read by native JPEG tiles, which equal OpenSlide's", path)
    reference.close()
    return native
