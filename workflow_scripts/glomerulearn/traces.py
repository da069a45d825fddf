"""From pixels to polygons: the outline of a mask, of the regions of a label image, of runs of pixels."""

from collections.abc import Callable, Iterator

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from shapely.geometry import Polygon
from skimage import measure


def trace(mask: np.ndarray) -> Polygon:
    """The outline of one connected region, holes kept: bool (h, w) -> polygon in pixels, pixel i covering [i, i + 1).

    Marching squares (Lorensen 1987) between pixel centres, so that the area is that of the pixels to a few tenths.
    """
    rings = measure.find_contours(np.pad(mask, 1).astype(float), 0.5)
    # find_contours states centres of the padded image as (row, column)
    rings = [ring[:, ::-1] - 0.5 for ring in sorted(rings, key=_area, reverse=True)]
    polygon = Polygon(rings[0], rings[1:]) if rings else Polygon()
    if not polygon.is_valid:
        polygon = polygon.buffer(0)
    # two parts that meet in a corner
    return max(polygon.geoms, key=lambda part: part.area) if polygon.geom_type == "MultiPolygon" else polygon


def _area(ring: np.ndarray) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def regions(
    labels: np.ndarray, wanted: Callable[[int], bool] = lambda value: True
) -> Iterator[tuple[int, Polygon | None]]:
    """(value, polygon in pixels) of every connected region of a label image (h, w) of integers; 0 is background.

    Values that are not `wanted` are not traced, and come once, without a polygon.
    """
    height, width = labels.shape
    flat = labels.reshape(-1)
    # where the value changes, and where a row begins
    begins = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    begins = np.union1d(begins, np.arange(height) * width)
    ends = np.append(begins[1:], flat.size)
    values = flat[begins]
    for value in np.unique(values[values != 0]):
        if not wanted(int(value)):
            yield int(value), None
            continue
        own = values == value
        line, begin = np.divmod(begins[own], width)
        for polygon in polygons_of_runs(line, begin, begin + ends[own] - begins[own]):
            yield int(value), polygon


def polygons_of_runs(line: np.ndarray, begin: np.ndarray, end: np.ndarray) -> list[Polygon]:
    """Join runs of pixels into connected regions and trace each; no image of the whole is needed.

    line: row of each run; begin, end: its first column and the one after its last. Sorted by line, then begin.
    """
    if not len(line):
        return []
    stride = int(end.max()) + 1
    first, last = line * stride + begin, line * stride + end
    # runs of the next line that share a column with a run: those that end after its begin and begin before its end
    low = np.searchsorted(last, (line + 1) * stride + begin, side="right")
    high = np.searchsorted(first, (line + 1) * stride + end, side="left")
    counts = np.maximum(high - low, 0)
    source = np.repeat(np.arange(len(line)), counts)
    target = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(low, counts)
    edges = sparse.coo_array((np.ones(len(source), bool), (source, target)), (len(line), len(line)))
    count, region = connected_components(edges, directed=False)
    order = np.argsort(region, kind="stable")
    found = []
    for members in np.split(order, np.searchsorted(region[order], np.arange(1, count))):
        top, left = line[members].min(), begin[members].min()
        mask = np.zeros((line[members].max() - top + 1, end[members].max() - left), bool)
        for run in members:
            mask[line[run] - top, begin[run] - left : end[run] - left] = True
        polygon = trace(mask)
        found.append(Polygon(*_moved(polygon, left, top)))
    return found


def _moved(polygon: Polygon, x: float, y: float) -> tuple[np.ndarray, list[np.ndarray]]:
    rings = [np.asarray(ring.coords) + (x, y) for ring in (polygon.exterior, *polygon.interiors)]
    return rings[0], rings[1:]
