"""Is a slide like those that a segmenter was trained on? Files, resolution and stain are kept with the model."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from glomerulearn.patches import PatchStore

_SAMPLED_PATCHES = 24
_GLASS = 220  # a pixel with no channel below this is no tissue
# how far outside the trained slides' range of optical density, in ranges of its own, a stain is another one
_STAIN_MARGIN = 0.75
_MIN_RANGE = 0.08
_MPP_MARGIN = 1.5


def known_slides(stores: Sequence[PatchStore]) -> dict:
    """What to remember of the slides that a segmenter is trained on: `files`, `mpp_level0`, `density` (one per slide)."""
    return {
        "files": [file_of(store) for store in stores],
        "mpp_level0": [store.mpp_level0 for store in stores],
        "density": [np.round(tissue_density(store), 4).tolist() for store in stores],
    }


def file_of(store: PatchStore) -> str:
    """What tells a slide's file from another's: its size and a digest of its first megabyte."""
    return f"{store.attributes['source_bytes']}-{store.attributes['source_digest'][:16]}"


def data_digest(paths: Sequence[Path]) -> str:
    """sha256 of what a segmenter is trained on and watched by: the slides' files and their outlines, in any order."""
    stores = [PatchStore(path) for path in paths]
    parts = [[file_of(store), hashlib.sha256(store.read("outlines")).hexdigest()] for store in stores]
    return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()


def tissue_density(store: PatchStore) -> np.ndarray:
    """Mean optical density of the tissue in some patches of a slide: float (3,), red, green, blue."""
    cells = store.grid[np.linspace(0, len(store.grid) - 1, min(len(store.grid), _SAMPLED_PATCHES)).astype(int)]
    pixels = [
        store.window(*(int(side) for side in cell * store.patch_size), store.patch_size)[::4, ::4] for cell in cells
    ]
    pixels = np.concatenate([each.reshape(-1, 3) for each in pixels])
    tissue = pixels[pixels.min(axis=1) < _GLASS]
    return -np.log10((tissue.astype(np.float32) + 1) / 256).mean(axis=0) if len(tissue) else np.zeros(3)


def unfamiliar(store: PatchStore, known: Mapping | None) -> list[str]:
    """Why a slide may be beyond what a segmenter knows, in words; empty where nothing speaks for it.

    known: what `known_slides` said, or None for a model that does not say.
    """
    if not known:
        return []
    reasons = []
    low, high = min(known["mpp_level0"]) / _MPP_MARGIN, max(known["mpp_level0"]) * _MPP_MARGIN
    # only slides coarser than the store's mpp are blurred by being enlarged; finer ones are reduced alike
    if store.mpp_level0 > max(high, store.mpp):
        reasons.append(
            f"it has {store.mpp_level0:.3g} um/px, those trained on {low * _MPP_MARGIN:.3g} to {high / _MPP_MARGIN:.3g}"
        )
    densities = np.array(known["density"])
    lowest, highest = densities.min(axis=0), densities.max(axis=0)
    margin = _STAIN_MARGIN * np.maximum(highest - lowest, _MIN_RANGE)
    own = tissue_density(store)
    if ((own < lowest - margin) | (own > highest + margin)).any():
        stated = ", ".join(f"{value:.2f}" for value in own)
        reasons.append(
            f"its stain has optical densities {stated} (red, green, blue), those trained on "
            + ", ".join(f"{a:.2f} to {b:.2f}" for a, b in zip(lowest, highest, strict=True))
        )
    return reasons
