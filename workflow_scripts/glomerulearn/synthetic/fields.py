"""Random fields and cell patterns that the synthetic tissue is made of. Everything is in pixels."""

import cv2
import numpy as np
from scipy.spatial import cKDTree


def noise(shape: tuple[int, int], scale_px: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise with features of `scale_px`: float32 `shape` (rows, columns), mean 0, variance about 1."""
    scale_px = max(scale_px, 1.0)
    coarse = rng.standard_normal([int(np.ceil(n / scale_px)) + 3 for n in shape], dtype=np.float32)
    # a coarse grid is drawn and enlarged: the cost does not depend on the scale
    size = (int(np.ceil(coarse.shape[1] * scale_px)), int(np.ceil(coarse.shape[0] * scale_px)))
    fine = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    top, left = (int(rng.integers(0, fine.shape[axis] - shape[axis])) for axis in (0, 1))
    return np.ascontiguousarray(fine[top : top + shape[0], left : left + shape[1]]) * 1.25


def jittered_grid(shape: tuple[int, int], spacing_px: float, rng: np.random.Generator) -> np.ndarray:
    """Points of a shaken hexagonal grid over `shape`: float64 (n, 2) of x, y."""
    rows = np.arange(-spacing_px, shape[0] + 2 * spacing_px, spacing_px * 0.866)
    columns = np.arange(-spacing_px, shape[1] + 2 * spacing_px, spacing_px)
    x, y = np.meshgrid(columns, rows)
    x[1::2] += spacing_px / 2
    points = np.column_stack((x.ravel(), y.ravel()))
    return points + rng.normal(0, 0.17 * spacing_px, points.shape)


def cells(
    shape: tuple[int, int],
    spacing_px: float,
    rng: np.random.Generator,
    merged: float = 0.0,
    stretch: float = 1.0,
    angle: float = 0.0,
    warp_px: float = 0.0,
) -> tuple[np.ndarray, int]:
    """Divide an area into irregular packed cells, as Voronoi cells of a shaken grid with bent borders.

    merged: share of cells that are joined to a neighbour (a tubule cut along its course).
    stretch, angle: how much longer cells are along the direction `angle` (rad).
    Returns: int32 labels `shape`, and the number of labels.
    """
    height, width = shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    if warp_px:
        for scale, share in ((5.0, 1.0), (1.8, 0.5)):
            x += warp_px * share * noise(shape, scale * warp_px, rng)
            y += warp_px * share * noise(shape, scale * warp_px, rng)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = (x * cos + y * sin) / np.float32(stretch), y * cos - x * sin
    along -= along.min()
    across -= across.min()
    plane = (int(across.max()) + 2, int(along.max()) + 2)
    points = jittered_grid(plane, spacing_px, rng)
    columns, rows = np.round(points).astype(int).T
    inside = (columns >= 0) & (rows >= 0) & (columns < plane[1]) & (rows < plane[0])
    points, columns, rows = points[inside], columns[inside], rows[inside]
    empty = np.ones(plane, np.uint8)
    empty[rows, columns] = 0
    nearest = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    of_seed = nearest[rows, columns]
    names = np.arange(nearest.max() + 1)
    joined = np.flatnonzero(rng.random(len(points)) < merged)
    if len(points) > 4 and len(joined):
        neighbours = cKDTree(points).query(points[joined], k=4)[1]
        partner = neighbours[np.arange(len(joined)), rng.integers(1, 4, len(joined))]
        names[of_seed[joined]] = of_seed[partner]
    labels = cv2.remap(nearest.astype(np.float32), along, across, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return names[labels.astype(np.int32)].astype(np.int32), len(names)


def border_distance(labels: np.ndarray) -> np.ndarray:
    """Distance of every pixel to the nearest border between two labels: float32, pixels."""
    inner = np.ones(labels.shape, np.uint8)
    inner[:, 1:] &= labels[:, 1:] == labels[:, :-1]
    inner[1:] &= labels[1:] == labels[:-1]
    return cv2.distanceTransform(inner, cv2.DIST_L2, 5)


def rounded_depth(labels: np.ndarray, corner_px: float, gap_px: float) -> np.ndarray:
    """Depth in cells with rounded corners, `gap_px` apart: float32, pixels, negative between cells."""
    border = border_distance(labels)
    core = border > corner_px + gap_px / 2
    outside = cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 5)
    return np.where(core, border - gap_px / 2, corner_px - outside)


def scatter(allowed: np.ndarray, spacing_px: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random places within `allowed` that keep `spacing_px` apart: integer x, y."""
    priority = rng.random(allowed.shape, dtype=np.float32) * allowed
    side = 2 * max(1, round(spacing_px / 2)) + 1
    best = cv2.dilate(priority, np.ones((side, side), np.uint8))
    y, x = np.nonzero((priority == best) & allowed)
    return x, y


def ramp(values: np.ndarray, width: float = 1.0) -> np.ndarray:
    """0 below -width/2, 1 above width/2, straight between: a soft edge at 0."""
    return np.clip(values / width + 0.5, 0, 1)


def line(values: np.ndarray, width: float) -> np.ndarray:
    """A soft line of about 2 x `width` where `values` is 0."""
    return np.exp(-np.square(values / width))
