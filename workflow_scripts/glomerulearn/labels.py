"""Which label each detected glomerulus has: from the pathologist's outlines, and from a table of labels.

Labels stand apart from crops and vectors, which must not depend on them: a corrected label changes scores only.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import shapely

from glomerulearn.outlines import Outline
from glomerulearn.scoring import match_glomeruli

log = logging.getLogger(__name__)

LABEL_COLUMNS = ("glomerulus", "label", "label_iou")


def label_glomeruli(
    detections: Path, outlines: Sequence[Outline], rows: Sequence[Mapping], mpp_level0: float | None
) -> pd.DataFrame:
    """Labels of the detected glomeruli of one slide: `LABEL_COLUMNS`, only those that have one.

    detections: their GeoJSON; an outline labels the glomerulus it matches (IoU at least 0.5, which is `label_iou`).
    rows: of the label sheet, which win over outlines: `label`, and `glomerulus`, or a point in it (`x_px`, `y_px` at level 0, or
    `x_um`, `y_um`). What fits no glomerulus is named in the log.
    """
    features = json.loads(Path(detections).read_text())["features"]
    names = [each["properties"]["name"] for each in features]
    shapes = [shapely.geometry.shape(each["geometry"]) for each in features]
    found = {}
    for one, other, iou in match_glomeruli(shapes, [outline.polygon for outline in outlines]):
        found[names[one]] = outlines[other].label, round(iou, 4)
    tree = shapely.STRtree(shapes)
    for row in rows:
        name = row["glomerulus"] or _at(row, tree, names, mpp_level0)
        if name in names:
            found[name] = row["label"], float("nan")
        else:
            place = row["glomerulus"] or ", ".join(
                f"{key} {row[key]}" for key in ("x_px", "y_px", "x_um", "y_um") if row[key]
            )
            log.warning("label %r at %s: no glomerulus was detected there", row["label"], place)
    return pd.DataFrame([(name, *found[name]) for name in names if name in found], columns=list(LABEL_COLUMNS))


def _at(row: Mapping, tree: shapely.STRtree, names: Sequence[str], mpp_level0: float | None) -> str:
    if row["x_px"] is not None:
        x, y = row["x_px"], row["y_px"]
    elif mpp_level0:
        x, y = row["x_um"] / mpp_level0, row["y_um"] / mpp_level0
    else:
        return ""
    hits = tree.query(shapely.Point(x, y), predicate="intersects")
    return names[hits[0]] if len(hits) else ""


def label_crops(rows: Sequence[Mapping]) -> pd.DataFrame:
    """Labels of the crops that users brought, as `label_glomeruli` gives them. rows: of the crop sheet."""
    found = [(row["glomerulus"], row["label"], float("nan")) for row in rows if row["label"]]
    return pd.DataFrame(found, columns=list(LABEL_COLUMNS))


def read_labels(paths: Sequence[Path]) -> dict[str, str]:
    """Glomerulus -> label, of the slides whose files are given."""
    tables = [pd.read_csv(path, dtype={"glomerulus": str, "label": str}, keep_default_na=False) for path in paths]
    return {name: label for table in tables for name, label in zip(table["glomerulus"], table["label"], strict=True)}
