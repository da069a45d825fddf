"""Aperio ImageScope's XML: layers (Annotation) of regions, in level-0 pixels."""

from xml.etree.ElementTree import Element

import shapely
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from glomerulearn.annotations.features import Feature, ellipse, number, ring

KINDS = {"0": "polygon", "1": "rectangle", "2": "ellipse", "3": "arrow", "4": "ruler", "5": "polygon"}


def read(root: Element) -> list[Feature]:
    """The class of a region is its own text, else its layer's name, else what the layer's first attribute says.

    Where several layers have no name at all, they are called `layer 1`, `layer 2`, ... by their Id, to be told apart in the
    class map; those that it does not mention count as unclassified. Regions with NegativeROA are holes.
    """
    layers = [layer for layer in root.iter("Annotation") if layer.find("Regions/Region") is not None]
    names = [layer.get("Name") or _attribute(layer) for layer in layers]
    several = names.count("") > 1
    features = []
    for layer, name in zip(layers, names, strict=True):
        unnamed = several and not name
        name = f"layer {layer.get('Id')}" if unnamed else name
        areas, holes = [], []
        for region in layer.iter("Region"):
            kind = KINDS.get(region.get("Type", "0"), f"region type {region.get('Type')}")
            geometry = _geometry(region, kind)
            if region.get("NegativeROA", "0") == "1":
                holes.append(geometry)
            else:
                otherwise = "" if unnamed and not region.get("Text") else None
                areas.append((region.get("Text") or name, kind, geometry, otherwise))
        features += [
            Feature(own, kind, _without_holes(geometry, holes), otherwise) for own, kind, geometry, otherwise in areas
        ]
        unused = sum(
            not any(area is not None and hole is not None and area.envelope.intersects(hole) for _, _, area, _ in areas)
            for hole in holes
        )
        features += [Feature(name, "hole in nothing", None)] * unused
    return features


def _without_holes(area: BaseGeometry | None, holes: list[BaseGeometry | None]) -> BaseGeometry | None:
    if area is None:
        return None
    area = shapely.make_valid(area)
    for hole in holes:
        # a hole is smaller than what it is in: another outline may lie inside a hole
        if hole is not None and hole.intersects(area) and hole.area < area.area:
            area = area.difference(shapely.make_valid(hole))
    return area


def _attribute(layer: Element) -> str:
    """Its name, or its value where the name is the one that ImageScope gives to all."""
    for attribute in layer.iterfind("Attributes/Attribute"):
        name = attribute.get("Name", "")
        if name and name != "Description":
            return name
        if attribute.get("Value"):
            return attribute.get("Value")
    return ""


def _geometry(region: Element, kind: str) -> BaseGeometry | None:
    points = [
        (number(vertex.get("X")), number(vertex.get("Y"))) for vertex in region.iter("Vertex")
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
