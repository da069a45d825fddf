"""Label images (PNG, TIFF): every pixel has the number or colour of its class, or of its glomerulus; 0 is background.

The image shows the whole slide, at full size or reduced.
"""

from collections.abc import Container
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from glomerulearn.annotations.features import Feature, Frame, scaled
from glomerulearn.errors import InputError
from glomerulearn.traces import regions

MAGIC = (b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAX_PIXELS = 4_000_000_000


def read(path: Path, frame: Frame, values: str, wanted: Container[str]) -> list[Feature]:
    """Every connected region is one feature. Its class is its value as text ("2", or "#ff0000" in a colour image).

    values: `class`, or `glomerulus` where each glomerulus has a number of its own; those, and the only value of an image
    that has one, are without a class. Classes that are not `wanted` (in lower case) are one feature each, not traced.
    Raises: InputError when the image cannot be read or has not the slide's shape.
    """
    image = _image(path)
    name = str
    if image.ndim == 3:
        packed = image[..., :3].astype(np.uint32)
        image = packed[..., 0] << 16 | packed[..., 1] << 8 | packed[..., 2]
        name = "#{:06x}".format
    scale = frame.scale_from(image.shape[1], image.shape[0], "the label image")
    if values == "glomerulus" or np.count_nonzero(np.unique(image)) == 1:
        name = "".format
    found = regions(image, lambda value: name(value) in wanted)
    return [Feature(name(value), "pixels", polygon and scaled(polygon, scale)) for value, polygon in found]


def _image(path: Path) -> np.ndarray:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _MAX_PIXELS
    try:
        if path.open("rb").read(4) == MAGIC[0]:
            with Image.open(path) as image:
                # of a palette image the numbers count, not the colours they are shown in
                values = np.asarray(image.convert("L") if image.mode in ("1", "LA") else image)
        else:
            with tifffile.TiffFile(path) as tiff:
                same = sum(page.shape == tiff.pages[0].shape for page in tiff.pages)
                if same > 1:
                    raise ValueError(f"{same} pages of the same size; one page with a number for each class is wanted")
                values = np.squeeze(tiff.pages[0].asarray())
    except Exception as error:  # both raise anything on damaged files
        raise InputError(f"a label image that cannot be read ({error})") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if values.ndim == 3 and values.shape[0] in (3, 4) and values.shape[2] not in (3, 4):
        values = np.moveaxis(values, 0, -1)
    whole = values.dtype == bool or np.issubdtype(values.dtype, np.integer)
    if not whole or values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise InputError(
            f"an image of shape {values.shape} and type {values.dtype}; one whole number per pixel is wanted"
        )
    return values.astype(np.uint8) if values.dtype == bool else values
