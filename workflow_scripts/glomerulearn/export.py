"""Write outlines for other programs: GeoJSON for QuPath (0.4 or newer), XML for ASAP and Aperio ImageScope."""

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import shapely
from shapely.geometry import Polygon

from glomerulearn.outlines import Outline, collection, feature

# one colour per class name that this workflow writes: red, green, blue
COLOURS = {"Glomerulus": (255, 140, 0)}
_OTHER_COLOUR = (0, 120, 255)
_MEASUREMENTS = {
    "area_um2": "Area um^2",
    "equivalent_diameter_um": "Equivalent diameter um",
    "perimeter_um": "Perimeter um",
    "circularity": "Circularity",
    "solidity": "Solidity",
    "mean_probability": "Mean probability",
}


def write_detections(path: Path, shapes: Sequence[Polygon], rows: Sequence[Mapping]) -> None:
    """Write a FeatureCollection of annotations in level-0 pixels, as QuPath imports it by drag and drop.

    rows: one mapping per shape with `glomerulus` (becomes the name) and the measured columns.
    """
    features = [
        feature(
            shapely.set_precision(shape, 0.01, mode="pointwise"),
            "Glomerulus",
            COLOURS["Glomerulus"],
            id=str(uuid.uuid5(uuid.NAMESPACE_OID, row["glomerulus"])),
            name=row["glomerulus"],
            isLocked=False,
            measurements={title: row[column] for column, title in _MEASUREMENTS.items() if math.isfinite(row[column])},
        )
        for shape, row in zip(shapes, rows, strict=True)
    ]
    Path(path).write_text(collection(features) + "\n")


def write_qupath(path: Path, outlines: Sequence[Outline]) -> None:
    """Write QuPath's GeoJSON, one annotation per outline."""
    Path(path).write_text(
        collection(feature(each.polygon, each.label, _colour(each.label)) for each in outlines) + "\n"
    )


def write_asap(path: Path, outlines: Sequence[Outline]) -> None:
    """Write ASAP's XML, one group per label.

    ASAP knows no holes and no parts: a hole is joined to its outline by a cut of no width, parts become annotations.
    """
    root = ElementTree.Element("ASAP_Annotations")
    annotations, groups = ElementTree.SubElement(root, "Annotations"), ElementTree.SubElement(root, "AnnotationGroups")
    for label in sorted({outline.label for outline in outlines}):
        group = ElementTree.SubElement(groups, "Group", Name=label, PartOfGroup="None", Color=_hex(label))
        ElementTree.SubElement(group, "Attributes")
    for number, (polygon, label) in enumerate(_parts(outlines)):
        item = ElementTree.SubElement(
            annotations, "Annotation", Name=f"Annotation {number}", Type="Polygon", PartOfGroup=label, Color=_hex(label)
        )
        corners = ElementTree.SubElement(item, "Coordinates")
        for order, (x, y) in enumerate(_keyhole(polygon)):
            ElementTree.SubElement(corners, "Coordinate", Order=str(order), X=f"{x:.4f}", Y=f"{y:.4f}")
    _save(root, path)


def write_imagescope(path: Path, outlines: Sequence[Outline]) -> None:
    """Write Aperio ImageScope's XML, one layer per label; holes are regions with NegativeROA, parts are regions."""
    root = ElementTree.Element("Annotations")
    for number, label in enumerate(sorted({outline.label for outline in outlines}), start=1):
        red, green, blue = _colour(label)
        layer = ElementTree.SubElement(
            root, "Annotation", Id=str(number), Name=label, Type="4", Visible="1", LineColor=str(red + 256 * green + 65536 * blue)
        )  # fmt: skip
        regions = ElementTree.SubElement(layer, "Regions")
        for polygon, own in _parts(outlines):
            if own == label:
                for index, ring in enumerate((polygon.exterior, *polygon.interiors)):
                    negative = str(int(index > 0))
                    identity = str(len(regions) + 1)
                    region = ElementTree.SubElement(regions, "Region", Id=identity, Type="0", NegativeROA=negative)
                    corners = ElementTree.SubElement(region, "Vertices")
                    for x, y in ring.coords[:-1]:
                        ElementTree.SubElement(corners, "Vertex", X=f"{x:.4f}", Y=f"{y:.4f}", Z="0")
    _save(root, path)


WRITERS: Mapping[str, Callable[[Path, Sequence[Outline]], None]] = {
    "qupath": write_qupath,
    "asap": write_asap,
    "imagescope": write_imagescope,
}


def _parts(outlines: Sequence[Outline]) -> list[tuple[Polygon, str]]:
    return [(part, each.label) for each in outlines for part in getattr(each.polygon, "geoms", [each.polygon])]


def _keyhole(polygon: Polygon) -> np.ndarray:
    """One ring (n, 2) around a polygon with holes: to the nearest corner of each hole, around it, and back."""
    ring = np.asarray(polygon.exterior.coords)[:-1]
    for interior in polygon.interiors:
        hole = np.asarray(interior.coords)[:-1]
        distances = np.linalg.norm(ring[:, None] - hole[None], axis=2)
        near, there = np.unravel_index(distances.argmin(), distances.shape)
        around = np.concatenate([hole[there:], hole[: there + 1]])
        ring = np.concatenate([ring[: near + 1], around, ring[near:]])
    return ring


def _colour(label: str) -> tuple[int, int, int]:
    return COLOURS.get(label, _OTHER_COLOUR)


def _hex(label: str) -> str:
    return "#{:02X}{:02X}{:02X}".format(*_colour(label))


def _save(root: ElementTree.Element, path: Path) -> None:
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
