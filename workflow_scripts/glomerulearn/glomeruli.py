"""From a probability map to single glomeruli: instances, polygons, and a table in micrometres."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage
from shapely.geometry import Polygon
from skimage import filters, measure, morphology, segmentation

from glomerulearn.traces import trace

_CONVEX = 0.93  # solidity above which a region is one glomerulus and never split

TABLE_COLUMNS = (
    "slide", "glomerulus", "centroid_x_px", "centroid_y_px", "area_um2", "equivalent_diameter_um", "perimeter_um",
    "circularity", "solidity", "mean_probability", "touches_border",
)  # fmt: skip


def find_glomeruli(probability: np.ndarray, mpp: float, settings: Mapping) -> np.ndarray:
    """Label every glomerulus in a probability map.

    probability: uint8 (h, w) at `mpp`. settings: `threshold` (a glomerulus reaches this far), `seed_threshold`
    (somewhere it must be this sure), `min_diameter_um`, `min_solidity`, `split_waist` (touching glomeruli are
    parted, by watershed on the distance transform, at a waist narrower than this share of the slimmer one's width).
    Returns: int32 (h, w), 0 = background, 1..n in reading order.
    """
    labels = np.zeros(probability.shape, np.int32)
    if not probability.size:
        return labels
    mask = filters.apply_hysteresis_threshold(
        probability, settings["threshold"] * 255, settings["seed_threshold"] * 255
    )
    mask = ndimage.binary_fill_holes(mask)
    regions = measure.label(mask)
    min_area_px = np.pi / 4 * (settings["min_diameter_um"] / mpp) ** 2
    count = 0
    for region in measure.regionprops(regions):
        if region.area < min_area_px:
            continue
        parts, canvas = [region], labels
        if region.solidity < _CONVEX:
            parts, canvas = measure.regionprops(_split(region.image, settings["split_waist"])), labels[region.slice]
        for part in parts:
            if part.area < min_area_px or part.solidity < settings["min_solidity"]:
                continue
            count += 1
            canvas[part.slice][part.image] = count
    return labels


def _split(mask: np.ndarray, waist: float) -> np.ndarray:
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    # summits above waists; not `h_maxima`, which takes two equal peaks of one round glomerulus for two
    levelled = morphology.reconstruction(waist * distance, distance)
    seeds = measure.label(morphology.local_maxima(levelled))
    return segmentation.watershed(-distance, seeds, mask=mask)


def polygons(labels: np.ndarray, scale: float) -> list[Polygon]:
    """The outline of each label 1..n in level-0 pixels; `scale` = level-0 pixels per pixel of `labels`."""
    shapes = []
    for region in measure.regionprops(labels):
        outline = np.asarray(trace(region.image).exterior.coords)
        polygon = Polygon((outline + region.bbox[1::-1]) * scale)
        shapes.append(polygon.simplify(0.1 * scale))
    return shapes


def measure_glomeruli(
    slide: str, labels: np.ndarray, shapes: Sequence[Polygon], probability: np.ndarray, mpp: float, mpp_level0: float
) -> pd.DataFrame:
    """One row per glomerulus, `TABLE_COLUMNS`; positions in level-0 pixels, sizes in um.

    circularity: 4 pi area / perimeter^2; solidity: area / area of the convex hull.
    """
    rows = []
    height, width = labels.shape
    regions = measure.regionprops(labels, probability) if len(shapes) else []
    for index, (region, shape) in enumerate(zip(regions, shapes, strict=True), start=1):
        top, left, bottom, right = region.bbox
        area_um2 = shape.area * mpp_level0**2
        perimeter_um = shape.length * mpp_level0
        rows.append(
            {
                "slide": slide,
                "glomerulus": f"{slide}-{index:04d}",
                "centroid_x_px": round(shape.centroid.x, 1),
                "centroid_y_px": round(shape.centroid.y, 1),
                "area_um2": round(area_um2, 1),
                "equivalent_diameter_um": round(2 * np.sqrt(area_um2 / np.pi), 2),
                "perimeter_um": round(perimeter_um, 1),
                "circularity": round(min(1.0, 4 * np.pi * area_um2 / perimeter_um**2), 4),
                "solidity": round(float(region.solidity), 4),
                "mean_probability": round(float(region.intensity_mean) / 255, 4),
                "touches_border": bool(top == 0 or left == 0 or bottom == height or right == width),
            }
        )
    return pd.DataFrame(rows, columns=list(TABLE_COLUMNS))


def tissue_border_share(image: np.ndarray, mask: np.ndarray, width_px: float) -> float:
    """Share of the ring around a glomerulus that is glass: high where the tissue's edge cuts it.

    image: uint8 (h, w, 3); mask: bool (h, w); width_px: width of the ring.
    """
    radius = max(1, round(width_px))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    ring = (cv2.dilate(mask.astype(np.uint8), kernel) > 0) & ~mask
    if not ring.any():
        return 0.0
    pixels = image[ring]
    glass = (pixels.min(axis=1) > 225) & (np.ptp(pixels, axis=1) < 20)
    return float(glass.mean())
