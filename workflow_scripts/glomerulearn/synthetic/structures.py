"""Paint glomeruli of four grades of sclerosis, and vessels, into a section. Depths and widths are in um."""

from dataclasses import dataclass

import cv2
import numpy as np

from glomerulearn.synthetic.fields import border_distance, cells, line, noise, ramp, scatter
from glomerulearn.synthetic.placement import ADVENTITIA_UM, HALO_UM, Structure, patch_mask
from glomerulearn.synthetic.tissue import Section, course_at, nuclei_rows

# share of the tuft that is sclerosed, per grade
SCLEROSED = ((0.0, 0.05), (0.22, 0.32), (0.5, 0.65), (1.0, 1.0))
_SPACE_UM = (10.5, 11.0, 9.0, 3.0)  # width of Bowman's space
_CAPSULE_UM = (1.3, 1.5, 2.1, 3.0)  # thickness of Bowman's capsule
_EXPANSION_UM = (0.0, 0.3, 0.8, 2.0)  # mesangium that narrows the capillaries
_FIBRES = (0.16, 0.18, 0.26, 0.36)  # matrix around the capsule


@dataclass
class _Painted:
    matrix: np.ndarray
    cytoplasm: np.ndarray
    blood: np.ndarray
    cover: np.ndarray  # 0: what was there stays, 1: it is hidden
    nuclei: np.ndarray  # rows as in Section, places within the patch


def paint(section: Section, structure: Structure, rng: np.random.Generator) -> None:
    """Paint a glomerulus or a vessel into the section, over what is there."""
    mpp = section.mpp
    margin_px = int(structure.halo_um * 1.6 / mpp) + 6
    left, top, mask = patch_mask(structure.polygon, section.tissue.shape, margin_px)
    inner = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) - 0.5
    outer = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) - 0.5
    depth = np.where(mask, inner, -outer) * mpp
    if structure.grade is None:
        painted = _vessel(depth, mpp, rng)
    else:
        centre = (structure.centre[0] - left, structure.centre[1] - top)
        painted = _glomerulus(depth, centre, structure.grade, mpp, rng)
    area = np.s_[top : top + mask.shape[0], left : left + mask.shape[1]]
    for name in ("matrix", "cytoplasm", "blood"):
        layer = getattr(section, name)[area]
        layer += painted.cover * (getattr(painted, name) - layer)
    x, y = painted.nuclei[:, :2].astype(int).T
    nuclei = painted.nuclei[section.tissue[area][y, x] > 0.5]
    nuclei[:, :2] += (left, top)
    section.nuclei.append(nuclei)


def _glomerulus(
    depth: np.ndarray, centre: tuple[float, float], grade: int, mpp: float, rng: np.random.Generator
) -> _Painted:
    """depth: measured inwards from Bowman's capsule, negative outside."""
    shape, inside = depth.shape, depth > 0
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    dx, dy = (x - centre[0]) * mpp, (y - centre[1]) * mpp
    grain, clumps = noise(shape, 2.2 / mpp, rng), noise(shape, 6 / mpp, rng)
    scar = _scar(dx, dy, inside, rng.uniform(*SCLEROSED[grade]), mpp, clumps, rng)

    # Bowman's space: a pale crescent, closed at the vascular pole and where the scar sticks to the capsule
    from_pole = np.angle(np.exp(1j * (np.arctan2(dy, dx) - rng.uniform(-np.pi, np.pi))))
    space = _SPACE_UM[grade] * (1 + 0.45 * noise(shape, 60 / mpp, rng)) * (1 - line(from_pole, 0.42))
    space = np.clip(space, 0, 22) * (1 - (0.36 if grade == 3 else 0.9) * scar)
    rim = depth - space
    # the tuft: lobules with clefts between that open into Bowman's space
    lobules, _ = cells(shape, 48 / mpp, rng, 0.1, warp_px=6 / mpp)
    cleft = border_distance(lobules) * mpp
    opening = 12 * np.exp(-cleft / 4.0) * np.exp(-np.maximum(rim, 0) / 24) * (1 - scar)
    tuft = rim - opening - 1.2 * clumps
    in_tuft = ramp(tuft, 1.6)

    # capillary loops around a mesangial stalk; the scar has closed them
    loops, count = cells(shape, 14.5 / mpp, rng, 0.35, warp_px=2.4 / mpp)
    wall = border_distance(loops) * mpp
    width = rng.uniform(-0.8, 1.3, count).astype(np.float32)[loops]
    stalk = line(np.maximum(20 - cleft, 0), 9)
    lumen = ramp(wall - 2.0 + width - 2.2 * stalk - _EXPANSION_UM[grade] - 9 * scar, 1.6) * in_tuft
    mesangium = (0.36 + 0.28 * stalk + 0.05 * _EXPANSION_UM[grade]) * (1 + 0.16 * clumps + 0.12 * grain)
    # wrinkled, collapsed loops still show in the scar as strands
    strands = line(wall - 0.8, 1.5) * (0.6 + 0.4 * clumps)
    hyaline = 0.86 + 0.15 * noise(shape, 18 / mpp, rng) + 0.12 * clumps + 0.07 * grain + 0.45 * strands
    matrix = mesangium * (1 - scar) + (0.58 if grade == 3 else 0.66) * hyaline * scar
    basement = 0.30 * line(wall - 2.0 + width, 1.0) * (1 - scar)
    matrix = (matrix * (1 - lumen) + basement) * in_tuft
    cytoplasm = (0.50 * (1 + 0.15 * grain) * (1 - scar) + 0.34 * scar) * (1 - 0.85 * lumen) * in_tuft
    filled = (rng.random(count) < 0.22)[loops]
    blood = 0.85 * lumen * filled * (0.75 + 0.25 * grain)
    if grade == 3:
        # what is left of Bowman's space holds loose collagen
        matrix += 0.30 * (1 - in_tuft) * (1 + 0.2 * grain)
        cytoplasm += 0.15 * (1 - in_tuft)

    capsule = line(depth - _CAPSULE_UM[grade], _CAPSULE_UM[grade])
    fibres = _FIBRES[grade] * (1 + 0.3 * np.sin(depth * 1.5 + 2.2 * clumps)) + 0.5 * line(depth, 1.0)
    seats = (tuft > 1.5) & (lumen < 0.5) & (wall < 4.2)
    return _Painted(
        np.where(inside, np.maximum(matrix, 0.72 * capsule), fibres),
        np.where(inside, np.maximum(cytoplasm, 0.25 * capsule), 0.30 + 0.1 * clumps),
        np.where(inside, blood, 0),
        np.where(inside, 1, ramp(depth + HALO_UM[grade], 5)).astype(np.float32),
        np.concatenate((_tuft_nuclei(seats, scar, mpp, rng), _parietal_nuclei(depth, scar, mpp, rng))),
    )


def _scar(
    dx: np.ndarray,
    dy: np.ndarray,
    inside: np.ndarray,
    share: float,
    mpp: float,
    clumps: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """0 where the tuft is healthy, 1 where sclerosed: a segment, `share` of the area, grown from a side."""
    if share >= 1:
        return np.ones(inside.shape, np.float32)
    side = rng.uniform(-np.pi, np.pi)
    ground = (dx * np.cos(side) + dy * np.sin(side)) / 45 + 0.8 * noise(inside.shape, 34 / mpp, rng)
    return ramp(ground - np.quantile(ground[inside], 1 - share) + 0.10 * clumps, 0.5)


def _tuft_nuclei(seats: np.ndarray, scar: np.ndarray, mpp: float, rng: np.random.Generator) -> np.ndarray:
    """Endothelium, mesangial cells and podocytes; few are left in a scar."""
    x, y = scatter(seats, 8.4 / mpp, rng)
    kept = rng.random(len(x)) < 0.82 - 0.62 * scar[y, x]
    x, y = x[kept], y[kept]
    length = rng.normal(5.9, 0.6, len(x)) * (1 - 0.12 * scar[y, x])
    width = length * rng.uniform(0.62, 1, len(x))
    return nuclei_rows(x, y, length, width, rng.uniform(0, np.pi, len(x)), rng.normal(0.70, 0.1, len(x)))


def _parietal_nuclei(depth: np.ndarray, scar: np.ndarray, mpp: float, rng: np.random.Generator) -> np.ndarray:
    """Flat cells that line the capsule."""
    x, y = scatter((depth > 2.4) & (depth < 4.4) & (scar < 0.5), 11 / mpp, rng)
    return nuclei_rows(x, y, 7.5, 2.8, course_at(depth, x, y), 0.8)


def _vessel(depth: np.ndarray, mpp: float, rng: np.random.Generator) -> _Painted:
    """An artery or a vein. depth: measured inwards from the outside of the wall, negative outside."""
    shape, inside = depth.shape, depth > 0
    artery = rng.random() < 0.65
    wall = float(depth.max()) * rng.uniform(*((0.42, 0.62) if artery else (0.10, 0.18)))
    wall = wall * (1 + 0.16 * noise(shape, 50 / mpp, rng))
    grain, clumps = noise(shape, 2.2 / mpp, rng), noise(shape, 8 / mpp, rng)
    lumen = ramp(depth - wall + 0.8 * clumps, 1.5)
    layers = 0.5 + 0.5 * np.sin(depth * 1.1 + 2.5 * clumps)
    clots = ramp(noise(shape, 40 / mpp, rng) + rng.normal(0.2, 0.5), 0.6)
    red_cells = ramp(noise(shape, 5 / mpp, rng) - 0.1, 0.6) * clots
    lamina = 0.35 * line(depth - wall + 1.5, 1.2) * inside
    adventitia_um = ADVENTITIA_UM * (0.7 if artery else 0.35)

    muscle_x, muscle_y = scatter((depth > -8) & (depth < wall - 3), 10 / mpp, rng)
    lining_x, lining_y = scatter((np.abs(depth - wall + 1.0) < 1.5) & inside, 10 / mpp, rng)
    x, y = np.concatenate((muscle_x, lining_x)), np.concatenate((muscle_y, lining_y))
    kept = rng.random(len(x)) < 0.7
    x, y = x[kept], y[kept]
    angle = course_at(cv2.GaussianBlur(depth, (0, 0), 2), x, y)
    length, width = rng.normal(9.5, 1.2, len(x)), rng.normal(3.2, 0.3, len(x))
    return _Painted(
        np.where(inside, 0.22 + 0.13 * layers, 0.30 + 0.10 * layers) * (1 - lumen) + lamina,
        np.where(inside, 0.72 + 0.12 * layers + 0.05 * grain, 0.30) * (1 - lumen),
        0.85 * red_cells * lumen,
        np.where(inside, 1, ramp(depth + adventitia_um, 9)).astype(np.float32),
        nuclei_rows(x, y, length, width, angle, 0.85),
    )
