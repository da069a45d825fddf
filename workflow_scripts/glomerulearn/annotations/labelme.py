"""labelme's JSON: shapes in pixels of an image that may be a smaller copy of the slide."""

import base64
import io
import math
from collections.abc import Mapping

import numpy as np
import shapely
from PIL import Image
from shapely.geometry import MultiPolygon, box
from shapely.geometry.base import BaseGeometry

from glomerulearn.annotations.features import Feature, Frame, ellipse, ring, scaled
from glomerulearn.traces import regions


def is_labelme(content: object) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get("shapes"), list)


def read(content: Mapping, frame: Frame) -> list[Feature]:
    """Raises: InputError when the image has not the slide's shape."""
    scale = (1.0, 1.0)
    if content.get("imageWidth") and content.get("imageHeight"):
        scale = frame.scale_from(content["imageWidth"], content["imageHeight"], "the image that was labelled")
    features = []
    for item in content["shapes"]:
        kind = item.get("shape_type") or "polygon"
        geometry = _geometry(kind, item)
        geometry = None if geometry is None else scaled(geometry, scale)
        features.append(Feature(str(item.get("label") or ""), kind, geometry))
    return features


def _geometry(kind: str, item: Mapping) -> BaseGeometry | None:
    points = item.get("points") or []
    if kind == "polygon":
        return ring(points)
    if kind == "rectangle" and len(points) >= 2:
        # two corners, or all four
        return box(*np.min(points, axis=0), *np.max(points, axis=0))
    if kind == "circle" and len(points) == 2:
        (x, y), radius = points[0], math.dist(*points)
        return ellipse(x - radius, y - radius, x + radius, y + radius)
    if kind == "mask" and points:
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(item["mask"])))) > 0
        parts = MultiPolygon([polygon for _, polygon in regions(mask.astype(np.uint8))])
        return shapely.transform(parts, lambda corners: corners + np.min(points, axis=0))
    return None
