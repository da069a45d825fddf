"""QuPath's GeoJSON, of every age: a FeatureCollection, a bare list of Features (0.2), a single Feature."""

from collections.abc import Mapping, Sequence

import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from glomerulearn.annotations.features import Feature


def features_in(content: object) -> list[Mapping] | None:
    """The Features of parsed JSON, or None where it is no GeoJSON."""
    if isinstance(content, Mapping) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    elif isinstance(content, Mapping) and content.get("type") == "Feature":
        content = [content]
    if not isinstance(content, list) or not all(isinstance(item, Mapping) for item in content):
        return None
    return content if all(item.get("type") == "Feature" or "geometry" in item for item in content) else None


def read(items: Sequence[Mapping]) -> list[Feature]:
    return [
        Feature(_class_name(item), str((item.get("geometry") or {}).get("type")), _geometry(item.get("geometry")))
        for item in items
    ]


def _class_name(item: Mapping) -> str:
    classification = (item.get("properties") or {}).get("classification") or {}
    if not isinstance(classification, Mapping):
        return str(classification)
    # QuPath 0.5 and newer write derived classes as a list
    return str(classification.get("name") or ": ".join(map(str, classification.get("names") or [])))


def _geometry(geometry: Mapping | None) -> BaseGeometry | None:
    try:
        return shape(geometry)
    except (TypeError, ValueError, AttributeError, KeyError, IndexError, shapely.errors.ShapelyError):
        return None
