"""One slide through a trained segmenter: probability, instances, outlines and table."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from skimage import measure
from torch import nn

from glomerulearn.export import write_detections
from glomerulearn.familiarity import unfamiliar
from glomerulearn.glomeruli import find_glomeruli, measure_glomeruli, polygons
from glomerulearn.inference import infer_slide
from glomerulearn.masks import write_masks
from glomerulearn.models import load_second_look, load_segmenter
from glomerulearn.networks.folding import folded
from glomerulearn.patches import PatchStore
from glomerulearn.second_look import look_again
from glomerulearn.slides import open_slide
from glomerulearn.typical_size import enlargement, typical_um

log = logging.getLogger(__name__)


def detect_glomeruli(
    patches: Path,
    scan: Path,
    model_folder: Path,
    settings: Mapping,
    mask_target: Path,
    geojson_target: Path,
    table_target: Path,
    device: torch.device | None = None,
    threads: int = 1,
    progress=iter,
) -> pd.DataFrame:
    """Find the glomeruli of one slide; write the mask store, GeoJSON for QuPath (level-0 px) and the table (um).

    patches: the slide's patch store; scan: the slide itself, which is opened if the segmenter looks twice.
    A slide that could not be tiled gives empty files, and the log says why.
    """
    torch.set_num_threads(threads)
    device = device or torch.device("cpu")
    model, trained = load_segmenter(model_folder, device)
    model = folded(model, device)
    second = load_second_look(model_folder, device)
    store = PatchStore(patches, normalise=trained["normalise"])
    if store.usable:
        own_um, enlarged = find_size(model, trained, store, settings, device)
        zoom = enlarged * (trained["second_look"]["zoom"] if second else 1)
        for reason in unfamiliar(store, trained.get("known"), zoom):
            log.warning("slide %s is unlike those %s was trained on: %s", store.slide, trained["segmenter"], reason)
        probability = infer_slide(model, trained, store, settings, device, progress, enlarged)
        if second:
            second = folded(second, device)
            with open_slide(scan, store.mpp_level0) as slide:
                probability = look_again(
                    second, trained["second_look"], probability, store, slide, settings, device, progress, enlarged
                )
        smallest_um = max(settings["min_diameter_um"], settings["min_relative_diameter"] * (own_um or 0))
        log.info("slide %s: what is narrower than %.0f um is none", store.slide, smallest_um)
        labels = find_glomeruli(probability, store.mpp, {**settings, "min_diameter_um": smallest_um})
        shapes = polygons(labels, store.scale)
        table = measure_glomeruli(store.slide, labels, shapes, probability, store.mpp, store.mpp_level0)
        scale = {"mpp": store.mpp, "mpp_level0": store.mpp_level0}
    else:
        log.warning("slide %s has no patches: %s", store.slide, store.attributes["reason"])
        probability, labels, shapes, scale = np.zeros((0, 0), np.uint8), np.zeros((0, 0), np.int32), [], {}
        table = measure_glomeruli(store.slide, labels, shapes, probability, 1.0, 1.0)
    log.info("slide %s: %d glomeruli", store.slide, len(table))
    write_detections(geojson_target, shapes, table.to_dict("records"))
    table.to_csv(table_target, index=False)
    facts = {"slide": store.slide, "status": store.attributes["status"], **scale}
    write_masks(mask_target, probability, labels, facts)
    return table


def find_size(
    model: nn.Module, trained: Mapping, store: PatchStore, settings: Mapping, device: torch.device
) -> tuple[float | None, float]:
    """The typical diameter (um) of a slide's glomeruli, and how much it must be enlarged to show them as wide as in training.

    A quick look, without mirror images and at one zoom, tells; None and 1 where it finds too few, or the segmenter does
    not say what is usual.
    """
    if not trained.get("usual_um"):
        return None, 1.0
    # half as large as counts in the end: all may be small, and small ones that are none hardly count by area
    limits = {**settings, "zooms": [1], "flips": False, "min_diameter_um": settings["min_diameter_um"] / 2}
    found = measure.regionprops(find_glomeruli(infer_slide(model, trained, store, limits, device), store.mpp, limits))
    own_um = typical_um([region.equivalent_diameter_area * store.mpp for region in found])
    usual_um = trained["usual_um"]
    enlarged = enlargement(own_um, usual_um)
    if own_um:
        said = f"a typical glomerulus is {own_um:.0f} um wide, where {trained['segmenter']} was trained, {usual_um:.0f}"
        log.info("slide %s: %s: it sees the slide %.2f times as large", store.slide, said, enlarged)
        if abs(own_um * enlarged / usual_um - 1) > 1e-6:
            log.warning("slide %s: %s, too far apart to be made alike: check its mpp", store.slide, said)
    else:
        log.info("slide %s: seen as large as it is; too few glomeruli (%d) to tell their size", store.slide, len(found))
    return own_um, enlarged
