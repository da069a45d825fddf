"""Where a segmenter's second look learns: at outlined glomeruli, at what the first look took for some, and at other tissue."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from glomerulearn.errors import DamagedRegion
from glomerulearn.inference import infer_slide
from glomerulearn.outlines import Drawing
from glomerulearn.patches import PatchStore
from glomerulearn.sampling import Slide, glomerulus_centres
from glomerulearn.second_look import candidates, read_window
from glomerulearn.slides import open_slide
from glomerulearn.typical_size import enlargement, outlined_um

log = logging.getLogger(__name__)

MISTAKE, TISSUE = "taken for a glomerulus", "other tissue"  # kinds of places beside the labels of outlines
_MISTAKE_OVERLAP = 0.1  # a region is a mistake when less of it is outlined
_CACHE_PATCHES = 64  # of each slide: all are open together
_TISSUE_PLACES = 40  # of each slide
_MOST_BYTES = 900_000_000  # of the places of each kind
_WIDTH = 2  # sides of a window that are read around a place, for turning and zooming


class Place(NamedTuple):
    """A place on a slide: image uint8 (side, side, 3), labels uint8 (side, side), 0 = background, 1 + i = label i."""

    kind: str
    image: np.ndarray
    labels: np.ndarray


def find_places(
    slides: Sequence[Slide],
    scans: Mapping[str, Path],
    model: nn.Module,
    facts: Mapping,
    settings: Mapping,
    device: torch.device,
) -> list[Place]:
    """The places of some slides, of each kind so many as memory holds; one that cannot be read is named in the log.

    slides: patch stores and outlines; scans: slide -> its file; model, facts: the first look.
    settings: `zoom` and `window_px` of the second look, `batch`, `seed`.
    """
    stores = [PatchStore(*slide, _CACHE_PATCHES, facts["normalise"]) for slide in slides]
    enlarged = [enlargement(outlined_um(store), facts.get("usual_um")) for store in stores]
    by_kind = defaultdict(list)
    for number, store in enumerate(stores):
        for kind, centre in _centres(store, model, facts, settings, device, enlarged[number]):
            by_kind[kind].append((number, centre))
    log.info("places: %s", {kind: len(found) for kind, found in by_kind.items()})
    rng = np.random.default_rng(settings["seed"])
    wanted = defaultdict(list)
    most = _MOST_BYTES // (4 * (_WIDTH * settings["window_px"]) ** 2)  # a pixel has three colours and a label
    for kind, found in by_kind.items():
        for index in sorted(rng.permutation(len(found))[:most]):
            number, centre = found[index]
            wanted[number].append((kind, centre))
    return [
        place
        for number in sorted(wanted)
        for place in _read(
            stores[number],
            scans[stores[number].slide],
            wanted[number],
            settings["window_px"],
            settings["zoom"] * enlarged[number],
        )
    ]


def _centres(
    store: PatchStore,
    model: nn.Module,
    facts: Mapping,
    settings: Mapping,
    device: torch.device,
    enlarged: float,
) -> list[tuple[str, np.ndarray]]:
    """Where the slide has what: kind, and (x, y) in store pixels."""
    rng = np.random.default_rng(settings["seed"])
    outlined = zip((outline.label for outline in store.outlines), glomerulus_centres(store), strict=True)
    anywhere = store.grid[rng.integers(len(store.grid), size=_TISSUE_PLACES)]
    tissue = (anywhere + rng.random((_TISSUE_PLACES, 2))) * store.patch_size
    looking = {
        "window_px": 2 * settings["window_px"], "overlap_px": settings["window_px"] // 2, "batch": settings["batch"],
        "flips": False, "zooms": [1, 4 / 3],
    }  # fmt: skip
    probability = infer_slide(model, facts, store, looking, device, enlarged=enlarged)
    truth = store.truth()
    mistakes = [
        np.array(region.centroid[::-1])
        for region in candidates(probability, store.mpp)
        if (truth[region.slice][region.image] > 0).mean() < _MISTAKE_OVERLAP
    ]
    return [*outlined, *((TISSUE, centre) for centre in tissue), *((MISTAKE, centre) for centre in mistakes)]


def _read(
    store: PatchStore, scan: Path, wanted: Sequence[tuple[str, np.ndarray]], window_px: int, zoom: float
) -> list[Place]:
    """The places of one slide, image and outlines, `zoom` times as fine as the store."""
    places = []
    side = _WIDTH * window_px
    drawing = Drawing(store.outlines, store.labels, store.scale / zoom)
    with open_slide(scan, store.mpp_level0) as slide:
        for kind, centre in wanted:
            left, top = (round(place - side / zoom / 2) for place in centre)
            try:
                image = read_window(slide, store, left, top, side, zoom)
            except DamagedRegion as error:
                log.warning("slide %s: a place is left out: %s", store.slide, error)
                continue
            places.append(Place(kind, image, drawing.window(left * zoom, top * zoom, side, side)))
    return places
