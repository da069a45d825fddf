"""Plain images: TIFF without tiles, PNG, JPEG. Read whole, so meant for regions and small scans.

What is not 8-bit RGB is converted by these rules, and the quality table says so:
- grey: the same value for red, green and blue; palette: its colours;
- CMYK: Pillow's plain formula, red = 255 - min(255, cyan + black), without a colour profile;
- 16 bits: divided by 257; by 16 (4) and capped at 255 when no value exceeds 4095 (1023), as 12-bit (10-bit) cameras save;
- alpha: laid over white.
"""

from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from glomerulearn import jpeg
from glomerulearn.errors import InputError

_MAX_PIXELS = 1_000_000_000  # 3 GB in memory
_DEPTHS = ((1023, 4), (4095, 16), (65535, 257))  # highest value, divisor


# what tifffile hands over as the numbers they are
_COLOURS = ("RGB", "MINISBLACK", "MINISWHITE", "SEPARATED")


def is_8_bit_rgb(path: Path) -> bool:
    """Whether the largest page of a TIFF is what OpenSlide shows truly: 8 bits, red, green and blue (or grey)."""
    try:
        with tifffile.TiffFile(path) as tiff:
            return _is_8_bit_rgb(_largest(tiff))
    except Exception:  # tifffile raises anything; OpenSlide, which opened it, knows better
        return True


def _is_8_bit_rgb(page: tifffile.TiffPage) -> bool:
    return page.bitspersample == 8 and page.photometric.name in ("RGB", "YCBCR", "MINISBLACK", "MINISWHITE")


def _largest(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    return max(tiff.pages, key=lambda page: page.imagewidth * page.imagelength)


def _png_depth(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[24]


class PlainReader:
    """A whole image in memory, with one level and no mpp of its own (the dpi of an image file is no microscope's).

    Raises: InputError when neither tifffile nor Pillow reads it as one brightfield image.
    """

    vendor = "plain image"
    shrinks = (1,)
    stated_mpp = centre_nm = None
    background = (255, 255, 255)

    def __init__(self, path: Path):
        self.notes: list[str] = []
        with path.open("rb") as file:
            head = file.read(4)
        if head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            self.name, image = "tifffile", self._read_tiff(path)
        else:
            self.name, image = "pillow", self._read_pillow(path)
        self._image = image
        self.sizes = [(image.shape[1], image.shape[0])]

    def region(self, level: int, x: int, y: int, width: int, height: int, shrink: int = 1) -> np.ndarray:
        columns, rows = self.sizes[level]
        canvas = np.full((height, width, 3), 255, np.uint8)
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, columns), min(y + height, rows)
        if right > left and bottom > top:
            canvas[top - y : bottom - y, left - x : right - x] = self._image[top:bottom, left:right]
        return canvas

    def close(self) -> None:
        self._image = np.zeros((0, 0, 3), np.uint8)

    def _read_tiff(self, path: Path) -> np.ndarray:
        try:
            with tifffile.TiffFile(path) as tiff:
                page = _largest(tiff)
                if page.imagewidth * page.imagelength > _MAX_PIXELS:
                    raise ValueError(
                        f"{page.imagewidth} x {page.imagelength} px; save so large an image as a tiled TIFF"
                    )
                if page.photometric.name == "PALETTE" or page.compression.name == "OJPEG":
                    return self._read_pillow(path)
                kind, axes, extra = page.photometric.name, page.axes, list(page.extrasamples)
                if page.is_tiled and _is_8_bit_rgb(page):
                    raise ValueError("a tiled TIFF of a kind that OpenSlide opens when it is whole")
                ends = np.array(page.dataoffsets, np.int64) + np.array(page.databytecounts, np.int64)
                if ends.max(initial=0) > path.stat().st_size:
                    raise ValueError(f"its pixels reach byte {ends.max()} of {path.stat().st_size}: it is cut short")
                if kind not in _COLOURS and not (kind == "YCBCR" and "JPEG" in page.compression.name):
                    raise ValueError(f"colours stored as {kind}; save it as RGB")
                values = page.asarray()
        except Exception as error:  # tifffile and its codecs raise anything on damaged files
            raise InputError(f"tifffile cannot read it ({error})") from error
        if axes.startswith("S"):
            values = np.moveaxis(values, 0, -1)
        if values.ndim not in (2, 3):
            raise InputError(f"an array of shape {values.shape}, which is no single image")
        if values.dtype == bool:
            values = values.astype(np.uint8) * 255
        values = self._to_8_bits(values)
        if kind == "MINISWHITE":
            values = 255 - values
        channels = 1 if values.ndim == 2 else values.shape[2]
        if kind == "SEPARATED" and channels >= 4:
            self.notes.append("CMYK converted without a colour profile")
            return np.asarray(Image.fromarray(np.ascontiguousarray(values[..., :4]), "CMYK").convert("RGB"))
        if channels == 1:
            self.notes.append("grey image")
            return np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=2)
        if channels == 4 and extra in ([1], [2]):  # alpha, of either kind
            return self._over_white(Image.fromarray(np.ascontiguousarray(values), "RGBA"))
        if channels == 4 and len(extra) == 1:
            self.notes.append("a fourth channel of no stated meaning is left out")
            values, channels = values[..., :3], 3
        if channels != 3:
            raise InputError(f"{channels} channels, which is no brightfield image (red, green, blue)")
        return np.ascontiguousarray(values)

    def _read_pillow(self, path: Path) -> np.ndarray:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _MAX_PIXELS
        try:
            with Image.open(path) as image:
                if image.format == "PNG" and _png_depth(path) == 16 and not image.mode.startswith("I"):
                    # Pillow keeps the upper half of 16-bit colours only
                    values = self._to_8_bits(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
                    if values.shape[2] == 4:
                        return self._over_white(Image.fromarray(cv2.cvtColor(values, cv2.COLOR_BGRA2RGBA), "RGBA"))
                    return cv2.cvtColor(values, cv2.COLOR_BGR2RGB)
                if image.format == "JPEG" and image.mode == "RGB":
                    # Pillow paints over damage
                    return jpeg.decode(path.read_bytes(), jpeg.buffer((image.height, image.width, 3)))
                if image.mode == "CMYK":
                    self.notes.append("CMYK converted without a colour profile")
                if image.mode.startswith("I"):
                    self.notes.append("grey image")
                    return np.repeat(self._to_8_bits(np.asarray(image).astype(np.uint16))[..., None], 3, axis=2)
                if image.mode in ("L", "1"):
                    self.notes.append("grey image")
                if "A" in image.mode or "transparency" in image.info:
                    return self._over_white(image.convert("RGBA"))
                return np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"Pillow cannot read it ({error})") from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit

    def _to_8_bits(self, values: np.ndarray) -> np.ndarray:
        if values.dtype == np.uint8:
            return values
        if values.dtype != np.uint16:
            raise InputError(f"pixels of type {values.dtype}; 8 or 16 bits are wanted")
        highest = int(values.max(initial=0))
        divisor = next(divisor for limit, divisor in _DEPTHS if highest <= limit)
        self.notes.append(f"16-bit values up to {highest} divided by {divisor}")
        return np.minimum(values // divisor, 255).astype(np.uint8)

    def _over_white(self, image: Image.Image) -> np.ndarray:
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(image, mask=image.getchannel("A"))
        self.notes.append("transparent parts are white")
        return np.asarray(canvas)
