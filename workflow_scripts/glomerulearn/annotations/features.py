"""What every reader of an annotation file returns, and what it may need to know of the slide."""

from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from glomerulearn.errors import InputError

_ASPECT_TOLERANCE = 0.01


@dataclass(frozen=True)
class Feature:
    """One thing in an annotation file, whether usable or not.

    name: its class ("" = none); kind: what the file calls its geometry; geometry: in level-0 pixels, None where it
    cannot be one.
    """

    name: str
    kind: str
    geometry: BaseGeometry | None


@dataclass(frozen=True)
class Frame:
    """The slide under the annotation. names: by which a file of many slides may call it; mpp: as the scanner states it."""

    names: tuple[str, ...]
    width_px: int
    height_px: int
    mpp: float | None = None
    centre_nm: tuple[float, float] | None = None

    def scale_from(self, width_px: int, height_px: int, what: str) -> float:
        """Level-0 pixels per pixel of an image of the whole slide, such as a mask.

        Raises: InputError when its shape is not the slide's.
        """
        across, down = self.width_px / width_px, self.height_px / height_px
        # a small image's sides are rounded to whole pixels
        tolerance = _ASPECT_TOLERANCE + 1 / min(width_px, height_px)
        if abs(across / down - 1) > tolerance:
            raise InputError(
                f"{what} is {width_px} x {height_px} px, the slide {self.width_px} x {self.height_px}: not the same shape, so "
                "it is not of the whole slide, or of another one"
            )
        return float(np.sqrt(across * down))

    def own(self, records: dict[str, object], what: str) -> object:
        """The record of this slide in a file of many."""
        wanted = {name.casefold() for name in self.names}
        for name, record in records.items():
            if _stem(name) in wanted or name.casefold() in wanted:
                return record
        found = ", ".join(list(records)[:5]) + (", ..." if len(records) > 5 else "")
        raise InputError(f"{what} for {found}, none for this slide ({' or '.join(self.names)}); rename the slide's row")


def _stem(name: str) -> str:
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    return name.rsplit(".", 1)[0].casefold() if "." in name else name.casefold()


def ring(points) -> Polygon | None:
    """A polygon through (x, y) points; None where they enclose nothing."""
    points = np.asarray(points, float)
    if points.ndim != 2 or len(points) < 3 or points.shape[1] < 2 or not np.isfinite(points).all():
        return None
    return Polygon(points[:, :2])


def ellipse(left: float, top: float, right: float, bottom: float) -> Polygon:
    """An ellipse in a box, as a polygon of 128 corners."""
    angles = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    x, y = (left + right) / 2, (top + bottom) / 2
    return Polygon(np.column_stack([x + (right - left) / 2 * np.cos(angles), y + (bottom - top) / 2 * np.sin(angles)]))


def scaled(geometry: BaseGeometry, factor: float) -> BaseGeometry:
    return geometry if factor == 1 else shapely.transform(geometry, lambda points: points * factor)
