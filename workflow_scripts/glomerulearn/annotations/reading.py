"""Read any annotation file into outlines with labels, and say what was found and what was left out."""

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import defusedxml.ElementTree
import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from glomerulearn.annotations import asap, coco, geojson, hubmap, imagescope, label_image, labelme, ndpa
from glomerulearn.annotations.features import Feature, Frame
from glomerulearn.errors import InputError
from glomerulearn.outlines import Outline

log = logging.getLogger(__name__)

FORMATS = (
    "QuPath GeoJSON, Aperio ImageScope XML, ASAP XML, Hamamatsu NDPA, HuBMAP JSON or run-length CSV, COCO or labelme JSON, "
    "or a label image (PNG, TIFF)"
)


@dataclass(frozen=True)
class Annotation:
    """What an annotation file held: the usable outlines, and counts of everything.

    format: the program or standard; classes: class name in the file -> features; kinds: geometry -> features; left_out:
    reason -> features; outside: outlines that reach beyond the slide.
    """

    outlines: list[Outline]
    format: str
    classes: dict[str, int]
    kinds: dict[str, int]
    left_out: dict[str, int]
    outside: int


def read_annotation(path: str | Path, classes: Mapping[str, str], frame: Frame, values: str = "class") -> Annotation:
    """Read an annotation file of any format (`FORMATS`), recognised by what it holds.

    classes: class name in the file (any case; "" = unclassified) -> label. Features of other classes, those that enclose
    no area and those drawn twice are left out, counted and logged. Crossing outlines are mended (`make_valid`).
    values: what the numbers of a label image are, `class` or `glomerulus`.

    Raises: InputError when the file cannot be read, has features but not one usable outline, or all outside the slide.
    """
    path = Path(path)
    try:
        labels = {name.casefold(): label for name, label in classes.items()}
        name, features = _features(path, frame, values, labels)
        areas = [_area(feature.geometry) for feature in features]
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a file from outside may hold anything
        raise InputError(
            f"{path}: damaged, or not as its program writes it ({type(error).__name__}: {error}); export it once more"
        ) from error
    outlines, left_out, seen = [], Counter(), set()
    for feature, polygon in zip(features, areas, strict=True):
        label = labels.get(feature.name.casefold(), labels.get(feature.otherwise))
        if label is None:
            left_out[f"class {feature.name!r} is not in outlines: classes"] += 1
        elif polygon is None:
            left_out[f"{feature.kind} encloses no area"] += 1
        elif polygon.normalize().wkb in seen:
            left_out["drawn twice"] += 1
        else:
            seen.add(polygon.normalize().wkb)
            outlines.append(Outline(polygon, label))
    names = dict(Counter(feature.name or "(no class)" for feature in features))
    kinds = dict(Counter(feature.kind for feature in features))
    log.info("%s: %s, %d outlines of %d features (%s; %s)", path, name, len(outlines), len(features), names, kinds)
    for reason, count in left_out.items():
        log.warning("%s: %d features left out: %s", path, count, reason)
    if features and not outlines:
        raise InputError(
            f"{path}: {name} with {len(features)} features but no usable outline ({dict(left_out)}); class names found: "
            f"{names}. Map the ones that are glomeruli in config key `outlines: classes`"
        )
    return Annotation(outlines, name, names, kinds, dict(left_out), _outside(path, outlines, frame))


def _features(path: Path, frame: Frame, values: str, labels: Mapping[str, str]) -> tuple[str, list[Feature]]:
    """The format's name and the features. Raises InputError without the path."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the annotation file ({error}); check the column `annotation`") from error
    if content[:4] in label_image.MAGIC:
        return "label image", label_image.read(path, frame, values, labels)
    text = _text(content)
    if text.startswith("<"):
        return _features_of_xml(text, frame)
    if text[:1] in ("{", "["):
        return _features_of_json(text, frame)
    header = (text.splitlines() or [""])[0].split(",")
    if "id" in header and set(hubmap.RUN_COLUMNS) & set(header):
        csv.field_size_limit(1 << 30)  # a slide's runs are one field
        return "HuBMAP run lengths", hubmap.read_runs(list(csv.DictReader(io.StringIO(text))), frame)
    raise InputError(f"not a format that is known: {FORMATS}. It begins with {text[:40]!r}")


def _text(content: bytes) -> str:
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding).strip()
    except UnicodeDecodeError:
        return content.decode("latin-1").strip()


def _features_of_xml(text: str, frame: Frame) -> tuple[str, list[Feature]]:
    # the text is decoded, so what it says of its encoding no longer holds
    root = defusedxml.ElementTree.fromstring(text.split("?>", 1)[1] if text.startswith("<?xml") else text)
    if root.tag == "Annotations":
        return "Aperio ImageScope XML", imagescope.read(root)
    if root.tag == "ASAP_Annotations":
        return "ASAP XML", asap.read(root)
    if root.tag == "annotations":
        return "Hamamatsu NDPA", ndpa.read(root, frame)
    raise InputError(f"XML that begins with <{root.tag}>, which is not a format that is known: {FORMATS}")


def _features_of_json(text: str, frame: Frame) -> tuple[str, list[Feature]]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        # HuBMAP writes one record per line
        content = [json.loads(line) for line in text.splitlines() if line.strip()]
    if labelme.is_labelme(content):
        return "labelme JSON", labelme.read(content, frame)
    if coco.is_coco(content):
        return "COCO JSON", coco.read(content, frame)
    if (items := geojson.features_in(content)) is not None:
        return "QuPath GeoJSON", geojson.read(items)
    if hubmap.is_polygons(content if isinstance(content, list) else [content]):
        return "HuBMAP JSON", hubmap.read_polygons(content if isinstance(content, list) else [content], frame)
    raise InputError(f"JSON, but not of a format that is known: {FORMATS}")


def _area(geometry: BaseGeometry | None) -> Polygon | MultiPolygon | None:
    """What of a geometry encloses area, mended where it crosses itself; None where nothing does."""
    if geometry is None or geometry.is_empty:
        return None
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        return None
    if geometry.has_z:
        geometry = shapely.force_2d(geometry)
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry)
    parts = [part for part in getattr(geometry, "geoms", [geometry]) if isinstance(part, Polygon | MultiPolygon)]
    area = parts[0] if len(parts) == 1 else shapely.union_all(parts) if parts else Polygon()
    return None if area.is_empty or area.area == 0 else area


def _outside(path: Path, outlines: list[Outline], frame: Frame) -> int:
    # a pixel of slack: QuPath's outlines run along pixel borders
    slide = shapely.box(-1, -1, frame.width_px + 1, frame.height_px + 1)
    outside = sum(not slide.contains(outline.polygon) for outline in outlines)
    if outside:
        log.warning("%s: %d of %d outlines reach beyond the slide", path, outside, len(outlines))
    if outlines and not any(slide.intersects(outline.polygon) for outline in outlines):
        raise InputError(
            f"{path}: all {len(outlines)} outlines lie outside the slide of {frame.width_px} x {frame.height_px} px; the "
            "file belongs to another slide or is not in level-0 pixels"
        )
    return outside
