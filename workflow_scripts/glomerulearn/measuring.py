"""Measure the glomeruli of a slide: vectors that need no network."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glomerulearn.crops import CropStore
from glomerulearn.morphology import SIZE_PX, measure
from glomerulearn.preparation import fit_crops
from glomerulearn.vectors import write_vectors


def measure_slide(crops: Path, pixels: Mapping, target: Path) -> None:
    """Measure the crops of one slide, in the mean over the stains of `pixels`, and write `target` as `write_vectors` does."""
    store = CropStore(crops)
    parts = [measure(*fit_crops(store, pixels | {"box": True}, SIZE_PX, stain)) for stain in pixels["stain"]]
    facts = {"extractor": "morphology", "weights": "measured", "scale": "standard"}
    write_vectors(target, store.slide, store.records, np.mean(parts, axis=0, dtype=np.float32), facts)
