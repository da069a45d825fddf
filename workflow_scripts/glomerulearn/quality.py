"""The account of every slide: what it is, how it was read, what was left out and why."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glomerulearn.annotations.reading import Annotation
from glomerulearn.slides import Slide

log = logging.getLogger(__name__)

# outlines whose median diameter is outside are hardly of glomeruli in level-0 pixels
_USUAL_DIAMETER_UM = (40.0, 600.0)

SLIDE_COLUMNS = (
    "slide", "status", "reason", "source", "vendor", "reader", "notes", "width_px", "height_px", "mpp_level0",
    "mpp_origin", "mpp", "tissue_area_mm2", "n_grid", "n_patches", "n_damaged", "damaged_at_px", "skipped", "seconds",
)  # fmt: skip
OUTLINE_COLUMNS = (
    "annotation_format", "n_outlines", "n_outlines_outside", "outline_classes", "outline_kinds", "outlines_left_out",
    "outline_diameter_um",
)  # fmt: skip
QC_COLUMNS = (*SLIDE_COLUMNS, "annotated", *OUTLINE_COLUMNS)


def describe_slide(slide: Slide, settings: Mapping) -> dict:
    """What an open slide is and how it is tiled: attributes of its patch store."""
    size, scale = settings["patch_size_px"], settings["mpp"] / slide.mpp
    return {
        "source_bytes": slide.path.stat().st_size,
        "source_digest": _head_digest(slide.path),
        "vendor": slide.reader.vendor,
        "reader": slide.reader.name,
        "notes": "; ".join(slide.reader.notes),
        "width_px": slide.width_px,
        "height_px": slide.height_px,
        "mpp_level0": slide.mpp,
        "mpp_origin": slide.mpp_origin,
        "mpp": settings["mpp"],
        "patch_size": size,
        "patch_size_level0": size * scale,
        "overlap": 0,
        "codec": settings["codec"],
        "canvas": list(slide.size_at(settings["mpp"])),
        "config_digest": hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:16],
    }


def describe_outlines(path: str | Path, annotation: Annotation, mpp: float) -> dict:
    """What an annotation file held, and a warning where its outlines are hardly of glomeruli."""
    diameters = [2 * np.sqrt(outline.polygon.area / np.pi) * mpp for outline in annotation.outlines]
    median = round(float(np.median(diameters)), 1) if diameters else None
    if median is not None and not _USUAL_DIAMETER_UM[0] <= median <= _USUAL_DIAMETER_UM[1]:
        log.warning(
            "%s: half of the outlines are less than %.4g um across, which is unusual for glomeruli; are they in level-0 "
            "pixels, and is the slide's mpp of %.4g right?",
            path,
            median,
            mpp,
        )
    return {
        "annotation_format": annotation.format,
        "n_outlines": len(annotation.outlines),
        "n_outlines_outside": annotation.outside,
        "outline_classes": annotation.classes,
        "outline_kinds": annotation.kinds,
        "outlines_left_out": annotation.left_out,
        "outline_diameter_um": median,
    }


def _head_digest(path: Path) -> str:
    # whole slides are gigabytes; size and first megabyte tell two files apart
    with path.open("rb") as file:
        return hashlib.sha256(file.read(1 << 20)).hexdigest()


def slide_row(facts: Mapping, seconds: float) -> dict:
    """What is told of a slide's pixels (`SLIDE_COLUMNS`), from what was found while it was tiled."""
    row = {name: facts.get(name) for name in SLIDE_COLUMNS}
    row["skipped"] = _counted(facts.get("skipped"))
    row["damaged_at_px"] = "; ".join(f"{x:.0f},{y:.0f}" for x, y in facts.get("damaged_at_px") or [])
    return row | {"seconds": round(seconds, 2)}


def quality_row(row: Mapping, outlines: Mapping | None) -> dict:
    """The row of a slide in the quality table (`QC_COLUMNS`), from its `slide_row` and the facts of its outlines, if any.

    A slide whose outlines cannot be used is `unlabelled`: its glomeruli are found, but nothing is trained or scored on it.
    """
    read = {name: (outlines or {}).get(name) for name in OUTLINE_COLUMNS}
    for name in ("outline_classes", "outline_kinds", "outlines_left_out"):
        read[name] = _counted(read[name])
    found = {**row, "annotated": outlines is not None, **read}
    if outlines and outlines["outlines_status"] == "failed" and row["status"] == "ok":
        found |= {"status": "unlabelled", "reason": outlines["outlines_reason"]}
    return found


def _counted(counts: Mapping | None) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in (counts or {}).items())
