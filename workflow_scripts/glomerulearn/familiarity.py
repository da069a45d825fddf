"""Is a slide like those that a segmenter was trained on? Files, resolution and stain are kept with the model."""

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np

from glomerulearn.patches import PatchStore

# how far outside the trained slides' range of optical density, in ranges of its own, a stain is another one
_STAIN_MARGIN = 0.75
_MIN_RANGE = 0.08
_MPP_MARGIN = 1.5


def known_slides(stores: Sequence[PatchStore]) -> dict:
    """What to remember of the slides that a segmenter is trained on: `files`, `mpp_level0`, `density` (one per slide)."""
    return {
        "files": [file_of(store.attributes) for store in stores],
        "mpp_level0": [store.mpp_level0 for store in stores],
        "density": [np.round(store.density[0], 4).tolist() for store in stores],
    }


def file_of(attributes: Mapping) -> str:
    """What tells a slide's file from another's: its size and a digest of its first megabyte."""
    return f"{attributes['source_bytes']}-{attributes['source_digest'][:16]}"


def data_digest(stores: Sequence[PatchStore]) -> str:
    """sha256 of what a segmenter is trained on and watched by: the slides' files and their outlines, in any order."""
    parts = [[file_of(store.attributes), _outlines_digest(store)] for store in stores]
    return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()


def _outlines_digest(store: PatchStore) -> str:
    parts = [[outline.polygon.wkb_hex, outline.label] for outline in store.outlines]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def unfamiliar(store: PatchStore, known: Mapping | None, zoom: float = 1) -> list[str]:
    """Why a slide may be beyond what a segmenter knows, in words; empty where nothing speaks for it.

    known: what `known_slides` said, or None for a model that does not say; zoom: how many times finer than the store a
    segmenter looks.
    """
    if not known:
        return []
    reasons = []
    low, high = min(known["mpp_level0"]) / _MPP_MARGIN, max(known["mpp_level0"]) * _MPP_MARGIN
    # slides coarser than what is looked at are blurred by being enlarged; finer ones are reduced alike
    finest = store.mpp / zoom
    blurred = store.mpp_level0 > max(high, finest)
    if blurred or max(store.mpp_level0, finest) < low:
        reasons.append(
            f"it has {store.mpp_level0:.3g} um/px, those trained on {low * _MPP_MARGIN:.3g} to {high / _MPP_MARGIN:.3g}"
        )
    densities = np.array(known["density"])
    lowest, highest = densities.min(axis=0), densities.max(axis=0)
    margin = _STAIN_MARGIN * np.maximum(highest - lowest, _MIN_RANGE)
    own = store.density[0]
    if ((own < lowest - margin) | (own > highest + margin)).any():
        stated = ", ".join(f"{value:.2f}" for value in own)
        reasons.append(
            f"its stain has optical densities {stated} (red, green, blue), those trained on "
            + ", ".join(f"{a:.2f} to {b:.2f}" for a, b in zip(lowest, highest, strict=True))
        )
    return reasons
