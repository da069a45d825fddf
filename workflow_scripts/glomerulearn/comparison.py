"""Score segmenters on whole slides against the pathologist's outlines."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from shapely.geometry import Polygon

from glomerulearn.glomeruli import polygons
from glomerulearn.masks import MaskStore
from glomerulearn.patches import PatchStore
from glomerulearn.scoring import GlomerulusCounts, PixelCounts, cross_entropy, match_glomeruli

log = logging.getLogger(__name__)

SCORE_COLUMNS = (
    "segmenter", "slide", "split", "loss", "accuracy", "mean_iou", "dice", "precision", "recall", "f1_glomerulus",
    "n_glomeruli", "n_detected",
)  # fmt: skip


def score_slide(mask: MaskStore, patches: PatchStore, detected: Sequence[Polygon]) -> dict:
    """Counts of one whole slide: keys `pixels`, `glomeruli`, `loss_sum` (cross-entropy summed over its pixels).

    detected: the detected polygons in level-0 pixels.
    """
    width, height = patches.canvas
    truth = patches.label_window(0, 0, width, height) > 0
    probability = mask.probability
    outlines = [outline.polygon for outline in patches.outlines]
    matched = len(match_glomeruli(detected, outlines))
    return {
        "pixels": PixelCounts.of(mask.instances > 0, truth),
        "glomeruli": GlomerulusCounts(matched, len(detected), len(outlines)),
        "loss_sum": cross_entropy(probability.astype(np.float32) / 255, truth),
    }


def score_segmenter(segmenter: str, split: str, stores: Sequence[tuple[Path, Path]]) -> pd.DataFrame:
    """Score a segmenter on the whole, stitched slides of a split: one row per slide and one `all` (`SCORE_COLUMNS`).

    stores: the mask store and the patch store of every slide. `all` pools the pixels and the glomeruli of the slides, so
    that a large slide weighs more. Loss is the cross-entropy per pixel.
    """
    rows, total = [], None
    for mask_path, patches_path in stores:
        mask, patches = MaskStore(mask_path), PatchStore(patches_path)
        if not (mask.usable and patches.usable and patches.annotated):
            log.warning("slide %s cannot be scored: %s", patches.slide, patches.attributes.get("reason"))
            continue
        counts = score_slide(mask, patches, polygons(mask.instances, patches.scale))
        rows.append(_score_row(segmenter, patches.slide, split, counts))
        total = counts if total is None else {key: total[key] + counts[key] for key in counts}
    if total is not None:
        rows.append(_score_row(segmenter, "all", split, total))
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def _score_row(segmenter: str, slide: str, split: str, counts: Mapping) -> dict:
    pixels, glomeruli = counts["pixels"], counts["glomeruli"]
    total = pixels.true_positive + pixels.false_positive + pixels.false_negative + pixels.true_negative
    return {
        "segmenter": segmenter,
        "slide": slide,
        "split": split,
        "loss": counts["loss_sum"] / total,
        "accuracy": pixels.accuracy,
        "mean_iou": pixels.mean_iou,
        "dice": pixels.dice,
        "precision": pixels.precision,
        "recall": pixels.recall,
        "f1_glomerulus": glomeruli.f1,
        "n_glomeruli": glomeruli.true,
        "n_detected": glomeruli.predicted,
    }
