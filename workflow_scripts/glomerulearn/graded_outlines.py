"""Detected outlines with their grade as the class, so that a slide in QuPath shows where the scarred glomeruli lie."""

import json
from pathlib import Path

import pandas as pd

from glomerulearn.outlines import collection

# from the least to the most scarred: red, green, blue
_RAMP = ((35, 139, 69), (254, 196, 79), (189, 0, 38))


def grade_outlines(glomeruli: pd.DataFrame, detections: Path, target: Path) -> None:
    """Write a slide's detections (QuPath's GeoJSON) again, each in the class `Grade <n>` and with its sclerosis axis.

    glomeruli: the table of the cohort, by glomerulus, with `grade` and `sclerosis_axis`; one without a grade stays as it is.
    """
    content = json.loads(Path(detections).read_text())
    highest = glomeruli["grade"].max()
    for item in content["features"]:
        properties = item["properties"]
        row = glomeruli.loc[properties["name"]]
        if pd.notna(row["grade"]):
            name = f"Grade {row['grade']:.0f}"
            properties["classification"] = {"name": name, "color": colour(row["grade"] / max(1, highest))}
            properties["measurements"]["Sclerosis axis"] = float(row["sclerosis_axis"])
    Path(target).write_text(collection(content["features"]) + "\n")


def colour(share: float) -> list[int]:
    """Green, yellow or red, or between: share in 0 to 1."""
    place = min(max(share, 0.0), 1.0) * (len(_RAMP) - 1)
    left = min(int(place), len(_RAMP) - 2)
    return [round(a + (b - a) * (place - left)) for a, b in zip(_RAMP[left], _RAMP[left + 1], strict=True)]
