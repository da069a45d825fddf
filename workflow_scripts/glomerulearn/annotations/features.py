"""What every reader of an annotation file returns, and what it may need to know of the slide."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from glomerulearn.errors import InputError


@dataclass(frozen=True)
class Feature:
    """One thing in an annotation file, whether usable or not.

    name: its class ("" = none); kind: what the file calls its geometry; geometry: in level-0 pixels, None where it
    cannot be one; otherwise: the class it counts as where its own is not mapped to a label.
    """

    name: str
    kind: str
    geometry: BaseGeometry | None
    otherwise: str | None = None


@dataclass(frozen=True)
class Frame:
    """The slide under the annotation. names: by which a file of many slides may call it; mpp: as the scanner states it."""

    names: tuple[str, ...]
    width_px: int
    height_px: int
    mpp: float | None = None
    centre_nm: tuple[float, float] | None = None

    def scale_from(self, width_px: int, height_px: int, what: str) -> tuple[float, float]:
        """Level-0 pixels per pixel, across and down, of an image of the whole slide, such as a mask.

        Raises: InputError when its shape is not the slide's, but for the rounding of its sides to whole pixels.
        """
        if min(width_px, height_px) > 0:
            # one reduction must give both sides, each off by less than a pixel
            least = max(self.width_px / (width_px + 1), self.height_px / (height_px + 1))
            most = min(self.width_px / max(width_px - 1, 0.5), self.height_px / max(height_px - 1, 0.5))
            if least < most:
                return self.width_px / width_px, self.height_px / height_px
        raise InputError(
            f"{what} is {width_px} x {height_px} px, the slide {self.width_px} x {self.height_px}: not the same shape, so it is "
            "not of the whole slide, or of another one"
        )

    def own(self, records: Sequence[tuple[str, object]], what: str) -> object:
        """The record of this slide in a file of many, by its name or, where none has that, its name without a suffix.

        Raises: InputError when there is none, or more than one.
        """
        wanted = {name.casefold() for name in self.names}
        for spelling in (str.casefold, _file_name, _stem):
            found = [record for name, record in records if spelling(name) in wanted]
            if len(found) == 1:
                return found[0]
            if found:
                raise InputError(f"{what} for {len(found)} that are called {' or '.join(self.names)}, as this slide is")
        names = ", ".join(name for name, _ in records[:5]) + (", ..." if len(records) > 5 else "")
        raise InputError(f"{what} for {names}, none for this slide ({' or '.join(self.names)}); rename the slide's row")


def _file_name(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1].casefold()


def _stem(name: str) -> str:
    stem, _, suffix = _file_name(name).rpartition(".")
    # S19.1 is a name, S19.tif is a file
    return stem if stem and suffix.isalpha() else _file_name(name)


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


def scaled(geometry: BaseGeometry, factors: tuple[float, float]) -> BaseGeometry:
    return geometry if factors == (1, 1) else shapely.transform(geometry, lambda points: points * factors)


def number(text: str | None) -> float:
    """A coordinate in XML; some locales write a decimal comma. Not a number where there is none."""
    return float(text.replace(",", ".")) if text else float("nan")
