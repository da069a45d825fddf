"""A section of kidney as amounts of what dyes bind to: needle cores, tubules and the tissue between them."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import ArrayLike

from glomerulearn.synthetic.fields import cells, line, noise, ramp, rounded_depth, scatter

_COARSE_PX = 4


@dataclass
class Section:
    """Amounts per level-0 pixel, float32 (rows, columns), about 0 to 1; `nuclei` are drawn last.

    nuclei rows: x_px, y_px, length_um, width_um, angle (rad), darkness.
    """

    mpp: float
    tissue: np.ndarray
    cytoplasm: np.ndarray
    matrix: np.ndarray
    blood: np.ndarray
    nuclear: np.ndarray
    nuclei: list[np.ndarray] = field(default_factory=list)


def nuclei_rows(
    x: ArrayLike,
    y: ArrayLike,
    length_um: ArrayLike,
    width_um: ArrayLike,
    angle: ArrayLike,
    darkness: ArrayLike,
) -> np.ndarray:
    """Nuclei as rows of a float32 array (see Section); each argument is a number, or one per nucleus."""
    columns = np.broadcast_arrays(x, y, length_um, width_um, angle, darkness)
    return np.stack(columns, axis=1).astype(np.float32)


def needle_cores(shape: tuple[int, int], mpp: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Depth (um) below the edge of `count` needle cores along the longer axis; negative on the glass.

    Returns: float32 `shape` (rows, columns).
    """
    if shape[1] > shape[0]:
        return np.ascontiguousarray(needle_cores(shape[::-1], mpp, count, rng).T)
    length, across = (n * mpp for n in shape)
    pitch = across / count
    # their course is smooth: a coarse grid does
    coarse = tuple(n // _COARSE_PX + 1 for n in shape)
    along = np.linspace(0, length, coarse[0], dtype=np.float32)[:, None]
    side = np.linspace(0, across, coarse[1], dtype=np.float32)[None, :]
    to_border = np.minimum(np.minimum(along, length - along), np.minimum(side, across - side))
    depth = np.full(coarse, -1e3, np.float32)
    for core in range(count):
        first, last = length * rng.uniform(0.04, 0.09), length * rng.uniform(0.91, 0.96)
        half = pitch * (rng.uniform(0.33, 0.38) if count > 1 else 0.42)
        waves = rng.uniform(0, 2 * np.pi, 3)
        course = along / length * 2 * np.pi
        bulge = 0.07 * np.sin(1.3 * course + waves[0]) + 0.05 * np.sin(3.1 * course + waves[1])
        offset = side - (core + 0.5) * pitch - 0.05 * pitch * np.sin(0.6 * course + waves[2])
        # blunt, obliquely torn ends; a soft minimum rounds the corners off
        slant = rng.normal(0, 0.25, 2) * min(1, length / pitch / 3)
        to_end = np.minimum(along - first + slant[0] * offset, last - along + slant[1] * offset)
        to_side, soft = half * (1 + bulge) - np.abs(offset), 0.25 * half
        core_depth = -soft * np.logaddexp(-to_side / soft, -to_end / soft)
        if length / pitch > 2.5 and rng.random() < 0.6:
            # cores break into pieces
            crack = along - length * rng.uniform(0.3, 0.7) + rng.normal(0, 0.5) * offset
            crack = np.abs(crack + 40 * noise(coarse, 150 / mpp / _COARSE_PX, rng)) - 22
            core_depth = np.minimum(core_depth, crack)
        depth = np.maximum(depth, core_depth)
    depth = cv2.resize(depth.astype(np.float32), shape[::-1])
    for scale_um, amount_um in ((260, 30), (70, 10), (22, 5)):
        depth += min(amount_um, 0.04 * pitch) * noise(shape, scale_um / mpp, rng)
    # glass all round
    return np.minimum(depth, cv2.resize(to_border, shape[::-1]) - 12)


def edge_along_cells(depth_um: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Let the edge follow whole cells in part: tissue tears between tubules rather than through them."""
    sums = np.bincount(labels.ravel(), depth_um.ravel(), count)
    means = sums / np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    return 0.6 * depth_um + 0.4 * means.astype(np.float32)[labels]


def paint_tubules(
    section: Section,
    labels: np.ndarray,
    count: int,
    occupied: np.ndarray,
    fibrosis: np.ndarray,
    medulla: bool,
    rng: np.random.Generator,
) -> None:
    """Fill the section with tubules and interstitium.

    labels: int32, one per tubule, `count` in all; where `occupied` (bool) other structures will be painted.
    fibrosis: float32, 0 to 1: scarred areas have small tubules in much matrix, with inflammatory cells.
    """
    mpp, shape = section.mpp, labels.shape
    depth = rounded_depth(labels, 9 / mpp, 1.5 / mpp) * mpp
    depth -= 5.5 * fibrosis + 0.9 * noise(shape, 14 / mpp, rng)
    depth[occupied] = -3
    inside = ramp(depth, 1.2 * mpp)
    grain = noise(shape, 2.2 / mpp, rng)
    clumps = noise(shape, 7 / mpp, rng)

    # interstitium: fibres, slits that opened in processing, capillaries
    fibres = 0.5 + 0.16 * grain + 0.14 * clumps
    slits = ramp(noise(shape, 55 / mpp, rng) - 0.55 - 1.2 * fibrosis, 0.5) * ramp(-depth - 0.8, 1.5)
    capillary = ramp(clumps - 0.75, 0.5) * ramp(-depth - 1, 2) * ~occupied
    between = (1 - 0.9 * slits) * (1 - 0.8 * capillary)
    section.matrix[:] = (0.17 + 0.16 * fibrosis) * fibres * 2 * between
    section.cytoplasm[:] = (0.34 + 0.12 * fibrosis) * (0.7 + 0.6 * fibres) * between
    section.blood[:] = 0.75 * capillary * (noise(shape, 11 / mpp, rng) > 0.2)

    # tubules: proximal ones are thick and granular with a fuzzy brush border, distal ones low, pale and clean
    distal = rng.random(count) < (0.75 if medulla else 0.36)
    wall_um = np.where(distal, rng.normal(10, 1.0, count), rng.normal(15.5, 2, count)).clip(6.5, 20)
    body = np.where(distal, rng.normal(0.60, 0.07, count), rng.normal(0.92, 0.10, count)).clip(0.4, 1.15)
    proximal = (~distal).astype(np.float32)[labels]
    wall = wall_um.astype(np.float32)[labels] * (1 - 0.35 * fibrosis) + 1.5 * clumps
    lumen = ramp(depth - wall, 2.2)
    brush = line(depth - wall + 1.2, 1.8) * proximal
    debris = 0.10 * proximal * ramp(noise(shape, 16 / mpp, rng) - 0.3, 1.5)
    granules = 1 + (0.05 + 0.09 * proximal) * grain + 0.08 * clumps
    cytoplasm = body.astype(np.float32)[labels] * (1.08 - 0.014 * depth) * granules
    cytoplasm = cytoplasm * (1 - lumen) + debris * lumen
    section.cytoplasm += inside * (cytoplasm - section.cytoplasm)
    section.matrix *= 1 - inside
    section.matrix += 0.22 * brush * inside
    membrane = line(depth - 0.4, 1.0 + 0.7 * fibrosis)
    section.matrix += membrane * (0.42 + 0.25 * fibrosis) * ~occupied
    section.blood *= 1 - inside

    solid = section.tissue > 0.5
    epithelium = (depth > 3.4) & (depth < 6.6) & (wall - depth > 2.6) & solid
    section.nuclei.append(_tubule_nuclei(epithelium, distal[labels], mpp, rng))
    interstitium = (depth < -0.3) & (slits < 0.3) & ~occupied & solid
    section.nuclei.append(_interstitial_nuclei(interstitium, depth, fibrosis, mpp, rng))


def _tubule_nuclei(seats: np.ndarray, distal: np.ndarray, mpp: float, rng: np.random.Generator) -> np.ndarray:
    x, y = scatter(seats, 8.6 / mpp, rng)
    kept = rng.random(len(x)) < np.where(distal[y, x], 0.75, 0.55)
    x, y = x[kept], y[kept]
    length = rng.normal(6.3, 0.5, len(x))
    width = length * rng.uniform(0.82, 1, len(x))
    return nuclei_rows(x, y, length, width, rng.uniform(0, np.pi, len(x)), rng.normal(0.72, 0.1, len(x)))


def _interstitial_nuclei(
    seats: np.ndarray, depth: np.ndarray, fibrosis: np.ndarray, mpp: float, rng: np.random.Generator
) -> np.ndarray:
    x, y = scatter(seats, 8 / mpp, rng)
    kept = rng.random(len(x)) < 0.28 + 0.3 * fibrosis[y, x]
    x, y = x[kept], y[kept]
    # flat cells lie along the tubules; inflammatory cells of scars are round and dark
    angle = course_at(cv2.GaussianBlur(depth, (0, 0), 3 / mpp), x, y)
    inflammatory = rng.random(len(x)) < 0.15 + 0.6 * fibrosis[y, x]
    length = np.where(inflammatory, rng.normal(5.6, 0.4, len(x)), rng.normal(8.5, 1.2, len(x)))
    width = np.where(inflammatory, length * 0.93, rng.normal(3.2, 0.4, len(x)))
    return nuclei_rows(x, y, length, width, angle, np.where(inflammatory, 1.0, 0.8))


def course_at(depth: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Direction (rad) of the lines of equal depth at integer places x, y."""
    last_row, last_column = depth.shape[0] - 1, depth.shape[1] - 1
    slope_x = depth[y, np.minimum(x + 1, last_column)] - depth[y, np.maximum(x - 1, 0)]
    slope_y = depth[np.minimum(y + 1, last_row), x] - depth[np.maximum(y - 1, 0), x]
    return np.arctan2(slope_y, slope_x) + np.pi / 2


def draw_nuclei(section: Section, rng: np.random.Generator) -> None:
    """Draw all collected nuclei: ellipses with clumped chromatin and a darker rim."""
    if not section.nuclei:
        return
    nuclei = np.concatenate(section.nuclei)
    reach = int(np.ceil(7.5 / section.mpp))
    rows, columns = section.nuclear.shape
    inside = (nuclei[:, :2] >= reach) & (nuclei[:, :2] < (columns - reach, rows - reach))
    nuclei = nuclei[inside.all(axis=1)]
    offsets = np.arange(-reach, reach + 1)
    canvas = section.nuclear.reshape(-1)
    # in portions, for the sake of memory
    for first in range(0, len(nuclei), 4096):
        x, y, length, width, angle, darkness = nuclei[first : first + 4096].T[..., None, None]
        shift = rng.uniform(-0.5, 0.5, (2, *x.shape)).astype(np.float32)
        dx = (offsets.astype(np.float32)[None, None, :] + shift[0]) * section.mpp
        dy = (offsets.astype(np.float32)[None, :, None] + shift[1]) * section.mpp
        cos, sin = np.cos(angle), np.sin(angle)
        radius = np.hypot((dx * cos + dy * sin) * 2 / length, (dy * cos - dx * sin) * 2 / width)
        stamp = np.clip((1.08 - radius) * width / 2 / section.mpp + 0.3, 0, 1) * darkness
        stamp *= 0.8 + 0.25 * np.minimum(radius, 1)
        stamp *= 1 + 0.16 * rng.standard_normal(stamp.shape, dtype=np.float32)
        place = (y.astype(np.int64) + offsets[None, :, None]) * columns + x.astype(np.int64) + offsets
        np.maximum.at(canvas, place.ravel(), stamp.ravel())


def tubule_labels(
    shape: tuple[int, int], mpp: float, medulla: bool, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Tubules as int32 labels, and their number: packed in the cortex, long and parallel in the medulla."""
    if medulla:
        angle = np.pi / 2 + rng.normal(0, 0.12) if shape[0] >= shape[1] else rng.normal(0, 0.12)
        return cells(shape, 36 / mpp, rng, 0.15, 4.5, angle, 9 / mpp)
    return cells(shape, 46 / mpp, rng, 0.38, 1.0, 0.0, 7 / mpp)
