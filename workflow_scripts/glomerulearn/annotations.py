"""A pathologist's outlines of glomeruli: read a file into one list of polygons, say what was left out.

Coordinates are level-0 pixels (x, y) of the slide.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon, shape
from shapely.geometry.base import BaseGeometry

from glomerulearn.errors import InputError

log = logging.getLogger(__name__)

UNCLASSIFIED = ""  # the name under which outlines without a class stand in the class map
_SUBPIXEL_BITS = 8  # cv2.fillPoly takes fixed-point corners


@dataclass(frozen=True)
class Outline:
    """One outlined glomerulus: a polygon (holes kept) in level-0 pixels and its label, e.g. `sclerosed`."""

    polygon: Polygon | MultiPolygon
    label: str


def read_outlines(path: str | Path, classes: Mapping[str, str]) -> list[Outline]:
    """Read QuPath GeoJSON: a FeatureCollection, a bare list of Features, or a single Feature.

    classes: class name in the file (any case; "" = unclassified) -> label. Features of other classes, and geometries
    that are no area, are left out, counted and logged.

    Raises: InputError when the file cannot be read, or has features but not one usable outline.
    """
    features = _features(Path(path))
    labels = {name.casefold(): label for name, label in classes.items()}
    outlines, left_out, names = [], Counter(), Counter()
    for feature in features:
        name = _class_name(feature)
        names[name or "(no class)"] += 1
        if name.casefold() not in labels:
            left_out[f"class {name!r} is not in outlines: classes"] += 1
            continue
        polygon = _area(feature.get("geometry"))
        if polygon is None:
            left_out[f"geometry {(feature.get('geometry') or {}).get('type')} encloses no area"] += 1
            continue
        outlines.append(Outline(polygon, labels[name.casefold()]))
    log.info("%s: %d outlines of %d features (%s)", path, len(outlines), len(features), dict(names))
    for reason, count in left_out.items():
        log.warning("%s: %d features left out: %s", path, count, reason)
    if features and not outlines:
        raise InputError(
            f"{path}: {len(features)} features but no usable outline ({dict(left_out)}); class names found: "
            f"{dict(names)}. Map the ones that are glomeruli in config key `outlines: classes`"
        )
    return outlines


def readable_outlines(annotation: Path | None, classes: Mapping[str, str]) -> list[Outline]:
    """The outlines of a file, or none where it cannot be used: tiling has already reported that slide."""
    try:
        return [] if annotation is None else read_outlines(annotation, classes)
    except InputError as error:
        log.error("%s", error)
        return []


def rasterise(
    outlines: Sequence[Outline], labels: Sequence[str], scale: float, x: float, y: float, size: tuple[int, int]
) -> np.ndarray:
    """Draw outlines into a window of an image that is `scale` level-0 pixels per pixel.

    x, y: top-left corner of the window in pixels of that image; size: (width, height) in the same pixels.
    Returns: uint8 (height, width), 0 = background, 1 + i = labels[i].
    """
    canvas = np.zeros((size[1], size[0]), np.uint8)
    window = shapely.box(x * scale, y * scale, (x + size[0]) * scale, (y + size[1]) * scale)
    for outline in outlines:
        if outline.polygon.intersects(window):
            value = 1 + labels.index(outline.label)
            for polygon in getattr(outline.polygon, "geoms", [outline.polygon]):
                _fill(canvas, polygon, value, scale, x, y)
    return canvas


def _fill(canvas: np.ndarray, polygon: Polygon, value: int, scale: float, x: float, y: float) -> None:
    # pixel i covers [i, i+1) and cv2 puts its centre at i, hence the half pixel
    corners = [np.asarray(ring.coords)[:, :2] / scale - (x + 0.5, y + 0.5) for ring in _rings(polygon)]
    fixed = [np.round(points * (1 << _SUBPIXEL_BITS)).astype(np.int32) for points in corners]
    # fillPoly also paints every pixel that its border touches, which would add half a pixel all round
    mask, border = np.zeros_like(canvas), np.zeros_like(canvas)
    cv2.fillPoly(mask, fixed, 1, shift=_SUBPIXEL_BITS)
    cv2.polylines(border, fixed, True, 1, shift=_SUBPIXEL_BITS)
    rows, columns = np.nonzero(border)
    inside = shapely.contains_xy(polygon, (columns + x + 0.5) * scale, (rows + y + 0.5) * scale)
    mask[rows, columns] = inside
    canvas[mask > 0] = value


def _rings(polygon: Polygon) -> list:
    return [polygon.exterior, *polygon.interiors]


def _features(path: Path) -> list[dict]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the outline file ({error}); check the column `annotation`") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a GeoJSON file ({error}); export the outlines from QuPath as GeoJSON") from error
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    elif isinstance(content, dict) and content.get("type") == "Feature":
        content = [content]
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise InputError(f"{path}: JSON, but no GeoJSON features in it; export the outlines from QuPath as GeoJSON")
    return content


def _class_name(feature: Mapping) -> str:
    properties = feature.get("properties") or {}
    classification = properties.get("classification") or {}
    return (classification.get("name") if isinstance(classification, dict) else str(classification)) or UNCLASSIFIED


def _area(geometry: Mapping | None) -> BaseGeometry | None:
    try:
        area = shape(geometry)
    except (TypeError, ValueError, AttributeError, KeyError, shapely.errors.ShapelyError):
        return None
    if not area.is_valid:
        area = shapely.make_valid(area)
    parts = [part for part in getattr(area, "geoms", [area]) if isinstance(part, Polygon | MultiPolygon)]
    area = shapely.union_all(parts) if parts else Polygon()
    return None if area.is_empty or area.area == 0 else area
