"""Write what other programs read: GeoJSON of detections for QuPath (0.4 or newer)."""

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from shapely.geometry import Polygon, mapping

# one colour per class name that this workflow writes: red, green, blue
COLOURS = {"Glomerulus": (255, 140, 0)}
_MEASUREMENTS = {
    "area_um2": "Area um^2",
    "equivalent_diameter_um": "Equivalent diameter um",
    "perimeter_um": "Perimeter um",
    "circularity": "Circularity",
    "solidity": "Solidity",
    "mean_probability": "Mean probability",
}


def write_geojson(path: Path, shapes: Sequence[Polygon], rows: Sequence[Mapping]) -> None:
    """Write a FeatureCollection of annotations in level-0 pixels, as QuPath imports it by drag and drop.

    rows: one mapping per shape with `glomerulus` (becomes the name) and the measured columns.
    """
    features = []
    for shape, row in zip(shapes, rows, strict=True):
        geometry = mapping(shape)
        geometry = {
            "type": geometry["type"],
            "coordinates": [[[round(x, 2), round(y, 2)] for x, y in ring] for ring in geometry["coordinates"]],
        }
        properties = {
            "objectType": "annotation",
            "name": row["glomerulus"],
            "classification": {"name": "Glomerulus", "color": list(COLOURS["Glomerulus"])},
            "isLocked": False,
            "measurements": {
                title: row[column] for column, title in _MEASUREMENTS.items() if math.isfinite(row[column])
            },
        }
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, row["glomerulus"])),
                "geometry": geometry,
                "properties": properties,
            }
        )
    Path(path).write_text(json.dumps({"type": "FeatureCollection", "features": features}) + "\n")
