"""Label images (PNG, TIFF): every pixel has the number or colour of its class, or of its glomerulus; 0 is background.

The image shows the whole slide, at full size or reduced.
"""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from glomerulearn.annotations.features import Feature, Frame, scaled
from glomerulearn.errors import InputError
from glomerulearn.traces import regions

MAGIC = (b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAX_PIXELS = 4_000_000_000


def read(path: Path, frame: Frame, values: str) -> list[Feature]:
    """Every connected region is one feature. Its class is its value as text ("2", or "#ff0000" in a colour image).

    values: `class`, or `glomerulus` where each glomerulus has a number of its own; those, and the only value of an image
    that has one, are without a class.
    Raises: InputError when the image cannot be read or has not the slide's shape.
    """
    image = _image(path)
    names = None
    if image.ndim == 3:
        packed = image[..., :3].astype(np.uint32)
        image = packed[..., 0] << 16 | packed[..., 1] << 8 | packed[..., 2]
        names = "#{:06x}".format
    scale = frame.scale_from(image.shape[1], image.shape[0], "the label image")
    found = list(regions(image))
    nameless = values == "glomerulus" or len({value for value, _ in found}) == 1
    name = (lambda value: "") if nameless else names or str
    return [Feature(name(value), "pixels", scaled(polygon, scale)) for value, polygon in found]


def _image(path: Path) -> np.ndarray:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _MAX_PIXELS
    try:
        if path.open("rb").read(4) == MAGIC[0]:
            with Image.open(path) as image:
                # of a palette image the numbers count, not the colours they are shown in
                values = np.asarray(image.convert("L") if image.mode in ("1", "LA") else image)
        else:
            values = np.squeeze(tifffile.imread(path, key=0))
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
