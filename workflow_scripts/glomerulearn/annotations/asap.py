"""ASAP's XML (the viewer of the CAMELYON and PANDA challenges), in level-0 pixels."""

import re
from xml.etree.ElementTree import Element

from glomerulearn.annotations.features import Feature, number, ring

_AREAS = ("Polygon", "Spline", "Rectangle")
_DEFAULT_NAME = re.compile(r"Annotation \d+$")


def read(root: Element) -> list[Feature]:
    """The class of an annotation is its group, else the name that a person gave it."""
    features = []
    for item in root.iter("Annotation"):
        kind, group = item.get("Type", "Polygon"), item.get("PartOfGroup", "None")
        name = item.get("Name", "")
        if group not in ("", "None"):
            name = group
        elif _DEFAULT_NAME.match(name):
            name = ""
        corners = sorted(item.iter("Coordinate"), key=lambda corner: number(corner.get("Order", "0")))
        points = [(number(corner.get("X")), number(corner.get("Y"))) for corner in corners]
        features.append(Feature(name, kind, ring(points) if kind in _AREAS else None))
    return features
