"""Cut single glomeruli from a slide at a fixed field, or take in the crops of a folder that users already have."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from glomerulearn.crops import write_crops
from glomerulearn.errors import DamagedRegion, InputError
from glomerulearn.glomeruli import tissue_border_share
from glomerulearn.masks import MaskStore
from glomerulearn.slides import open_slide

log = logging.getLogger(__name__)

_RING_UM = 12.0  # how far around a glomerulus glass is looked for
_MAX_GLASS = 0.25  # more glass than this around it, and the tissue's edge cuts it


def crop_glomeruli(
    slide_path: Path,
    mpp: float | None,
    mask_path: Path,
    table: pd.DataFrame,
    settings: Mapping,
    target: Path,
    progress=iter,
) -> None:
    """Cut every detected glomerulus of a slide, centred, at a fixed field, and write the crop store.

    settings: `field_um` (side of the square field), `size_px` (side of the crop). A crop that cannot be decoded is left
    out, counted and logged.
    """
    mask_store = MaskStore(mask_path)
    records, images, masks, lost = [], [], [], []
    if len(table):
        instances = mask_store.instances
        crop_mpp = settings["field_um"] / settings["size_px"]
        with open_slide(slide_path, mpp) as slide:
            for number, row in enumerate(progress(table.to_dict("records")), start=1):
                half = settings["field_um"] / 2 / slide.mpp
                corner = row["centroid_x_px"] - half, row["centroid_y_px"] - half
                size = settings["size_px"]
                try:
                    image = slide.read(*corner, size, size, crop_mpp)
                except DamagedRegion as error:
                    log.warning("glomerulus %s cannot be cropped: %s", row["glomerulus"], error)
                    lost.append(row["glomerulus"])
                    continue
                mask = _mask_window(instances, number, corner, slide.mpp, mask_store.attributes["mpp"], crop_mpp, size)
                glass = tissue_border_share(image, mask, _RING_UM / crop_mpp)
                leaves_field = bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())
                cut = bool(row["touches_border"]) or glass > _MAX_GLASS or leaves_field
                records.append({"glomerulus": row["glomerulus"], "cut": cut})
                images.append(image)
                masks.append(mask)
    write_crops(target, mask_store.slide, images, masks, records, settings | {"lost": lost})


def _mask_window(
    instances, number: int, corner_px, mpp_level0: float, mpp: float, crop_mpp: float, size: int
) -> np.ndarray:
    """The part of glomerulus `number` of a whole-slide instance map at `mpp` under a crop: bool (size, size)."""
    zoom = crop_mpp / mpp
    # pixel centres: crop pixel i lies at (corner + (i + 0.5) * crop_mpp) um, mask pixel j at (j + 0.5) * mpp
    left, top = (corner * mpp_level0 / mpp + 0.5 * zoom - 0.5 for corner in corner_px)
    rows = slice(max(0, int(top)), max(0, int(np.ceil(top + size * zoom)) + 1))
    columns = slice(max(0, int(left)), max(0, int(np.ceil(left + size * zoom)) + 1))
    part = (instances[rows, columns] == number).astype(np.float32)
    matrix = np.array([[zoom, 0, left - columns.start], [0, zoom, top - rows.start]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, matrix, (size, size), flags=flags) > 0.5


def import_crops(slide: str, rows: Sequence[Mapping], settings: Mapping, target: Path, progress=iter) -> None:
    """Make the crop store of one slide from image files.

    rows: of the crop sheet: `glomerulus`, `image`, and optionally `mask`. Images are made square and
    resized to `size_px`; a mask is what is brighter than 127; without one the whole image counts.
    Raises: InputError naming the file that cannot be read or whose mask has another shape.
    """
    size = settings["size_px"]
    images, masks, records = [], [], []
    for row in progress(rows):
        image = _read_image(row["image"], "RGB", row["glomerulus"])
        mask = np.full(image.shape[:2], 255, np.uint8)
        if row.get("mask"):
            mask = _read_image(row["mask"], "L", row["glomerulus"])
            if mask.shape != image.shape[:2]:
                raise InputError(
                    f"{row['mask']}: mask of glomerulus {row['glomerulus']} is {mask.shape[1]} x {mask.shape[0]} px, its "
                    f"image {image.shape[1]} x {image.shape[0]}; both must be the same"
                )
        if image.shape[0] != image.shape[1]:
            image, mask = _square(image, mask)
        if image.shape[:2] != (size, size):
            shrink = cv2.INTER_AREA if max(image.shape[:2]) > size else cv2.INTER_LINEAR
            image, mask = (cv2.resize(each, (size, size), interpolation=shrink) for each in (image, mask))
        images.append(image)
        masks.append(mask > 127)
        records.append({"glomerulus": row["glomerulus"], "cut": False})
    write_crops(target, slide, images, masks, records, settings | {"lost": []})


def _square(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengthen the shorter side on both ends with the border's pixels, which do not count as glomerulus."""
    height, width = mask.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    edges = top, side - height - top, left, side - width - left
    image = cv2.copyMakeBorder(image, *edges, cv2.BORDER_REPLICATE)
    return image, cv2.copyMakeBorder(mask, *edges, cv2.BORDER_CONSTANT, value=0)


def _read_image(path: str, mode: str, glomerulus: str) -> np.ndarray:
    try:
        return np.asarray(Image.open(path).convert(mode))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(
            f"{path}: image of glomerulus {glomerulus} cannot be read ({error}); check the crop sheet"
        ) from error
