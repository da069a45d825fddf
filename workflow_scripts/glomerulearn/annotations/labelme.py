"""labelme's JSON: shapes in pixels of an image that may be a smaller copy of the slide."""

import base64
import io
import math
from collections.abc import Mapping

import numpy as np
import shapely
from PIL import Image
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from glomerulearn.annotations.features import Feature, Frame, ellipse, ring, scaled
from glomerulearn.traces import trace


def is_labelme(content: object) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get("shapes"), list)


def read(content: Mapping, frame: Frame) -> list[Feature]:
    """Raises: InputError when the image has not the slide's shape."""
    scale = 1.0
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
    if kind in ("rectangle", "circle", "mask") and len(points) >= 2:
        (x1, y1), (x2, y2) = points[0], points[-1]
        if kind == "rectangle":
            return box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        if kind == "circle":
            radius = math.dist((x1, y1), (x2, y2))
            return ellipse(x1 - radius, y1 - radius, x1 + radius, y1 + radius)
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(item["mask"]))))
        return shapely.transform(trace(mask > 0), lambda corners: corners + (x1, y1))
    return None
