"""How large a slide's glomeruli are beside those that a segmenter was trained on.

A segmenter knows a glomerulus by its size as well as by its looks, but what is typical is 130 um on one slide and 270 um on
another: kidneys differ, tissue shrinks in the laboratory, and files misstate their mpp. So a segmenter sees every slide
enlarged or reduced until its glomeruli have the usual size, as it sees every slide in one stain.
"""

from collections.abc import Sequence

import numpy as np

from glomerulearn.patches import PatchStore

_ENOUGH = 5  # glomeruli; fewer may all be small ones
_MOST = 2.0  # a slide is enlarged or reduced at most so much: what differs more is something else


def outlined_um(store: PatchStore) -> float | None:
    """The typical diameter of a slide's outlined glomeruli, as `typical_um`."""
    areas_px = np.array([outline.polygon.area for outline in store.outlines])
    return typical_um(2 * np.sqrt(areas_px / np.pi) * store.mpp_level0)


def typical_um(diameters_um: Sequence[float]) -> float | None:
    """The diameter (um) that half of a slide's glomeruli, by area, exceed; None where they are too few to tell.

    By area, because scars are small, and so is most of what a segmenter takes for glomeruli without right.
    """
    if len(diameters_um) < _ENOUGH:
        return None
    ordered = np.sort(diameters_um)
    area = np.cumsum(ordered**2)
    return float(ordered[np.searchsorted(area, area[-1] / 2)])


def usual_um(stores: Sequence[PatchStore]) -> float | None:
    """The median of the typical diameters (um) of the slides that a segmenter is trained on; None if none can tell."""
    known = [own for own in map(outlined_um, stores) if own]
    return float(np.median(known)) if known else None


def enlargement(own_um: float | None, wanted_um: float | None) -> float:
    """How much a slide is enlarged (reduced, below 1) so that its typical diameter becomes the wanted one; 1 if not known."""
    return float(np.clip(wanted_um / own_um, 1 / _MOST, _MOST)) if own_um and wanted_um else 1.0
