"""HuBMAP's challenge files: polygons as JSON, and run lengths as CSV (column by column, counted from 1)."""

from collections.abc import Mapping, Sequence

import numpy as np
import shapely
from shapely.geometry import Polygon

from glomerulearn.annotations.features import Feature, Frame, ring, scaled
from glomerulearn.errors import InputError
from glomerulearn.traces import polygons_of_runs

RUN_COLUMNS = ("encoding", "rle")
_HEIGHT, _WIDTH = ("img_height", "height", "height_pixels"), ("img_width", "width", "width_pixels")


def is_polygons(content: object) -> bool:
    """Parsed JSON of records {id, annotations: [{type, coordinates}]}, or a bare list of rings of points."""
    return _is_records(content) or _is_rings(content)


def _is_records(content: object) -> bool:
    return isinstance(content, list) and bool(content) and all(
        isinstance(item, Mapping) and {"id", "annotations"} <= set(item) for item in content
    )  # fmt: skip


def _is_rings(content: object) -> bool:
    try:
        return all(len(points) and len(points[0]) == 2 and np.isfinite(points[0]).all() for points in content)
    except (TypeError, KeyError, IndexError):
        return False


def read_polygons(content: Sequence, frame: Frame) -> list[Feature]:
    if not _is_records(content):
        return [Feature("", "polygon", ring(points)) for points in content]
    items = frame.own([(str(item["id"]), item["annotations"]) for item in content], "annotations")
    return [Feature(str(item.get("type") or ""), "polygon", _rings(item.get("coordinates"))) for item in items]


def _rings(rings: Sequence | None) -> Polygon | None:
    outer, *holes = [ring(points) for points in rings or [[]]]
    return None if outer is None else Polygon(outer.exterior, [hole.exterior for hole in holes if hole is not None])


def read_runs(rows: Sequence[Mapping[str, str]], frame: Frame) -> list[Feature]:
    """Every connected region of the slide's mask is one feature without a class.

    Raises: InputError when no row is this slide's, or the runs do not fit its size.
    """
    row = frame.own([(str(row["id"]), row) for row in rows], "run lengths")
    text = next(row[column] for column in RUN_COLUMNS if column in row) or ""
    try:
        numbers = np.array(text.split(), np.int64)
        width = int(float(next((row[column] for column in _WIDTH if row.get(column)), frame.width_px)))
        height = int(float(next((row[column] for column in _HEIGHT if row.get(column)), frame.height_px)))
    except ValueError as error:
        raise InputError(f"the row of {row['id']} holds what is no whole number ({error})") from error
    starts, lengths = numbers[0::2] - 1, numbers[1::2]
    if len(starts) != len(lengths):
        raise InputError(
            f"the row of {row['id']} holds {len(numbers)} numbers, which are not pairs of start and length"
        )
    if len(starts) and (starts.min() < 0 or lengths.min() < 0 or (starts + lengths).max() > width * height):
        raise InputError(
            f"the runs of {row['id']} reach pixel {(starts + lengths).max()} of an image of {width} x {height} px, which has "
            f"{width * height}: they belong to another slide, or to another level of it"
        )
    scale = frame.scale_from(width, height, f"the image of {row['id']}")
    polygons = polygons_of_runs(*_by_column(starts, lengths, height))
    return [Feature("", "run lengths", scaled(shapely.transform(each, _swapped), scale)) for each in polygons]


def _by_column(starts: np.ndarray, lengths: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of pixels counted down the columns -> (column, first row, row after the last), cut where a column ends."""
    order = np.argsort(starts, kind="stable")
    starts, lengths = starts[order], lengths[order]
    starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    first, last = starts // height, (starts + lengths - 1) // height
    parts = last - first + 1
    source = np.repeat(np.arange(len(starts)), parts)
    column = first[source] + np.arange(len(source)) - np.repeat(np.cumsum(parts) - parts, parts)
    begin = np.maximum(starts[source] - column * height, 0)
    end = np.minimum(starts[source] + lengths[source] - column * height, height)
    return column, begin, end


def _swapped(points: np.ndarray) -> np.ndarray:
    return points[:, ::-1]
