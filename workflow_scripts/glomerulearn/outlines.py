"""Outlines of glomeruli as polygons: kept as GeoJSON, found again by place, drawn into pixels.

Coordinates are level-0 pixels (x, y) of the slide.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon, mapping, shape

FACTS = "glomerulearn"  # the member of a slide's GeoJSON file that says what was found and left out
_SUBPIXEL_BITS = 8  # cv2.fillPoly takes fixed-point corners
_MARGIN = 2  # px: cv2 rounds a line anew where it enters the canvas, so no edge of the canvas may be one of the window


@dataclass(frozen=True)
class Outline:
    """One outlined glomerulus: a polygon (holes kept) in level-0 pixels and its label, e.g. `sclerosed`."""

    polygon: Polygon | MultiPolygon
    label: str


def unpack(content: Mapping) -> list[Outline]:
    """The outlines of a FeatureCollection whose features `feature` made."""
    return [
        Outline(shape(item["geometry"]), item["properties"]["classification"]["name"]) for item in content["features"]
    ]


def feature(polygon: Polygon | MultiPolygon, class_name: str, colour: Sequence[int] | None = None, **more) -> dict:
    """One annotation in QuPath's GeoJSON; colour: red, green, blue; more: `id`, or what becomes a property of it."""
    classification = {"name": class_name} | ({"color": list(colour)} if colour else {})
    top = {"id": more.pop("id")} if "id" in more else {}
    properties = {"objectType": "annotation", "classification": classification, **more}
    return {"type": "Feature", **top, "geometry": mapping(polygon), "properties": properties}


def collection(features: Iterable[dict], **more) -> str:
    """The text of a GeoJSON file; more: members that GeoJSON does not know, and readers pass over."""
    return json.dumps({"type": "FeatureCollection", **more, "features": list(features)})


class SlideOutlines:
    """The outlines of a slide, from the file that `slide_outlines` wrote: `facts`, `usable`, `labels` (all that config knows)."""

    def __init__(self, path: Path):
        self._content = json.loads(Path(path).read_text())
        self.facts: dict = self._content[FACTS]
        self.usable: bool = self.facts["outlines_status"] == "ok"
        self.labels: list[str] = self.facts["labels"]

    @cached_property
    def outlines(self) -> list[Outline]:
        """In level-0 pixels, in the order of the file."""
        return unpack(self._content)


class Drawing:
    """Outlines to be drawn window by window: only those that reach into a window cost anything.

    labels: the label of value 1, 2, ...; scale: level-0 pixels per pixel of the drawing.
    """

    def __init__(self, outlines: Sequence[Outline], labels: Sequence[str], scale: float):
        self._outlines, self._labels, self._scale = outlines, labels, scale
        self._tree = shapely.STRtree([outline.polygon for outline in outlines])

    def window(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Draw the window whose top-left corner is the drawing's pixel (x, y).

        A pixel belongs to an outline when its centre does. Where outlines overlap, the later one stands.
        Returns: uint8 (height, width), 0 = background, 1 + i = labels[i].
        """
        canvas = np.zeros((height + 2 * _MARGIN, width + 2 * _MARGIN), np.uint8)
        frame = shapely.box(*(side * self._scale for side in (x, y, x + width, y + height)))
        for index in sorted(self._tree.query(frame, predicate="intersects")):
            outline = self._outlines[index]
            value = 1 + self._labels.index(outline.label)
            for polygon in getattr(outline.polygon, "geoms", [outline.polygon]):
                _fill(canvas, polygon, value, self._scale, x - _MARGIN, y - _MARGIN)
        return canvas[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]


def _fill(canvas: np.ndarray, polygon: Polygon, value: int, scale: float, x: float, y: float) -> None:
    # pixel i covers [i, i+1) and cv2 puts its centre at i, hence the half pixel
    rings = [polygon.exterior, *polygon.interiors]
    corners = [np.asarray(ring.coords)[:, :2] / scale - (x + 0.5, y + 0.5) for ring in rings]
    # nothing changes outside of a box of the canvas
    limits = canvas.shape[1], canvas.shape[0]
    (left, top), (right, bottom) = (
        np.clip(np.floor(corner), 0, limits).astype(int)
        for corner in (corners[0].min(axis=0) - _MARGIN, corners[0].max(axis=0) + 1 + _MARGIN)
    )
    canvas, x, y = canvas[top:bottom, left:right], x + left, y + top
    if not canvas.size:
        return
    fixed = [np.round((points - (left, top)) * (1 << _SUBPIXEL_BITS)).astype(np.int32) for points in corners]
    # fillPoly also paints every pixel that its border touches, which would add half a pixel all round
    mask, border = np.zeros_like(canvas), np.zeros_like(canvas)
    cv2.fillPoly(mask, fixed, 1, shift=_SUBPIXEL_BITS)
    cv2.polylines(border, fixed, True, 1, shift=_SUBPIXEL_BITS)
    rows, columns = np.nonzero(border)
    inside = shapely.contains_xy(polygon, (columns + x + 0.5) * scale, (rows + y + 0.5) * scale)
    mask[rows, columns] = inside
    canvas[mask > 0] = value
