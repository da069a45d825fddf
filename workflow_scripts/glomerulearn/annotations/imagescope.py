"""Aperio ImageScope's XML: layers (Annotation) of regions, in level-0 pixels."""

import re
from xml.etree.ElementTree import Element

from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from glomerulearn.annotations.features import Feature, ellipse, ring

KINDS = {"0": "polygon", "1": "rectangle", "2": "ellipse", "3": "arrow", "4": "ruler", "5": "polygon"}


def read(root: Element) -> list[Feature]:
    """The class of a region is its own text, else its layer's name, else the name of the layer's first attribute.

    Regions with NegativeROA are holes in the regions of their layer that they lie in.
    """
    features = []
    for layer in root.iter("Annotation"):
        layer_name = layer.get("Name") or _attribute(layer)
        areas, holes = [], []
        for region in layer.iter("Region"):
            kind = KINDS.get(region.get("Type", "0"), f"region type {region.get('Type')}")
            geometry = _geometry(region, kind)
            if region.get("NegativeROA", "0") == "1":
                holes.append(geometry)
            else:
                areas.append((region.get("Text") or layer_name, kind, geometry))
        for name, kind, geometry in areas:
            for hole in holes:
                if geometry is not None and hole is not None and geometry.intersects(hole):
                    geometry = geometry.buffer(0).difference(hole.buffer(0))
            features.append(Feature(name, kind, geometry))
        unused = sum(
            not any(area is not None and hole is not None and area.envelope.intersects(hole) for _, _, area in areas)
            for hole in holes
        )
        features += [Feature(layer_name, "hole in nothing", None)] * unused
    return features


def _attribute(layer: Element) -> str:
    names = [attribute.get("Name", "") for attribute in layer.iterfind("Attributes/Attribute")]
    return next((name for name in names if name and name != "Description"), "")


def _geometry(region: Element, kind: str) -> BaseGeometry | None:
    points = [
        (_number(vertex.get("X")), _number(vertex.get("Y"))) for vertex in region.iter("Vertex")
    ]  # the older Vertex and the newer one differ in Z only
    if kind in ("rectangle", "ellipse") and len(points) == 2:
        (x1, y1), (x2, y2) = points
        corners = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
        return box(*corners) if kind == "rectangle" else ellipse(*corners)
    if kind == "ellipse" and len(points) == 4:
        # the corners of the box around it
        outer = Polygon(points).bounds
        return ellipse(*outer)
    return None if kind in ("arrow", "ruler") else ring(points)


def _number(text: str | None) -> float:
    # some locales write a decimal comma
    return float(re.sub(",", ".", text)) if text else float("nan")
