"""Where glomeruli and vessels lie in a section, and their outlines."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from shapely.geometry import Polygon

CORNERS = 72
# per grade of sclerosis: range of diameters, and the scar tissue around the capsule
DIAMETER_UM = ((150, 215), (150, 220), (135, 200), (92, 140))
HALO_UM = (3.0, 4.0, 7.0, 13.0)
ADVENTITIA_UM = 14.0
_ROUGHNESS = (0.035, 0.035, 0.045, 0.055)
_VESSEL_ROUGHNESS = 0.05
_SEARCH_PX = 8  # grid on which room is searched
_APART_UM = 14.0
_TRIES = 20


@dataclass(frozen=True)
class Structure:
    """A glomerulus (grade 0 to 3) or, with grade None, a vessel: outline and centre in level-0 pixels.

    Of a glomerulus that the tissue's edge cuts, the polygon is what is left; diameter_um is of the whole.
    """

    polygon: Polygon
    centre: tuple[float, float]
    diameter_um: float
    grade: int | None

    @property
    def halo_um(self) -> float:
        """Width of the fibres around it."""
        return ADVENTITIA_UM if self.grade is None else HALO_UM[self.grade]


def place(
    depth_um: np.ndarray,
    mpp: float,
    grades: Sequence[int],
    vessels: int,
    cut_share: float,
    rng: np.random.Generator,
) -> list[Structure]:
    """Find room for one glomerulus per grade and for `vessels` vessels, as far as there is room.

    depth_um: float32 (rows, columns), depth below the tissue's edge.
    cut_share: share of the glomeruli that this edge may cut.
    """
    wanted = [(grade, rng.uniform(*DIAMETER_UM[grade])) for grade in grades]
    wanted.sort(key=lambda item: -item[1])  # large ones while there is room
    wanted += [(None, float(np.clip(rng.lognormal(4.2, 0.4), 40, 170))) for _ in range(vessels)]
    found: list[Structure] = []
    for grade, diameter in wanted:
        may_be_cut = grade is not None and rng.random() < cut_share
        smallest = diameter if grade is None else DIAMETER_UM[grade][0]
        structure = _find_room(depth_um, mpp, grade, diameter, may_be_cut, found, rng)
        structure = structure or _find_room(depth_um, mpp, grade, smallest, may_be_cut, found, rng)
        if structure is not None:
            found.append(structure)
    return found


def patch_mask(polygon: Polygon, shape: tuple[int, int], margin_px: int) -> tuple[int, int, np.ndarray]:
    """The pixels whose centre is in the polygon, in the window around it: left, top, bool mask."""
    left, top, right, bottom = polygon.bounds
    left, top = max(0, int(left) - margin_px), max(0, int(top) - margin_px)
    right, bottom = min(shape[1], int(right) + margin_px + 2), min(shape[0], int(bottom) + margin_px + 2)
    x, y = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
    shapely.prepare(polygon)
    return left, top, shapely.contains_xy(polygon, x, y)


def _find_room(
    depth_um: np.ndarray,
    mpp: float,
    grade: int | None,
    diameter_um: float,
    may_be_cut: bool,
    found: Sequence[Structure],
    rng: np.random.Generator,
) -> Structure | None:
    margin_um = diameter_um * (0.28 if may_be_cut else 0.56) + 6
    rows, columns = np.nonzero(depth_um[::_SEARCH_PX, ::_SEARCH_PX] > margin_um)
    x, y = (_SEARCH_PX * (places + rng.random(len(places))) for places in (columns, rows))
    free = np.ones(len(x), bool)
    for other in found:
        distance_um = mpp * np.hypot(x - other.centre[0], y - other.centre[1])
        free &= distance_um > 0.58 * (diameter_um + other.diameter_um) + _APART_UM
    for index in rng.permutation(np.flatnonzero(free))[:_TRIES]:
        centre = float(x[index]), float(y[index])
        polygon = _left_by_edge(_outline(centre, diameter_um / mpp, grade, rng), depth_um, may_be_cut)
        if polygon is not None:
            return Structure(polygon, centre, diameter_um, grade)
    return None


def _outline(centre: tuple[float, float], diameter_px: float, grade: int | None, rng: np.random.Generator) -> Polygon:
    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    roughness = _VESSEL_ROUGHNESS if grade is None else _ROUGHNESS[grade]
    radius = np.ones(CORNERS)
    for wave in range(2, 8):
        radius += roughness * 2 / wave * rng.normal() * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    radius *= diameter_px / 2 / np.sqrt(np.mean(radius**2))
    corners = np.column_stack((centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)))
    return Polygon(corners.round(2))


def _left_by_edge(polygon: Polygon, depth_um: np.ndarray, may_be_cut: bool) -> Polygon | None:
    left, top, mask = patch_mask(polygon, depth_um.shape, 4)
    window = depth_um[top : top + mask.shape[0], left : left + mask.shape[1]]
    kept = mask & (window > 0)
    if np.count_nonzero(mask & (window >= 8)) > 0.985 * polygon.area:
        return polygon
    if not may_be_cut or np.count_nonzero(kept) < 0.45 * polygon.area:
        return None
    contours, _ = cv2.findContours(kept.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=cv2.contourArea)[:, 0]
    # through the centres of the outermost pixels, hence the growth by half of one
    shape = Polygon(contour + (left + 0.5, top + 0.5)).buffer(0.5).simplify(0.5)
    if shape.geom_type != "Polygon":
        return None
    shape = Polygon(np.asarray(shape.exterior.segmentize(5).coords).round(2))
    return shape if shape.is_valid else None
