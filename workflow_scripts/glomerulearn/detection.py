"""One slide through a trained segmenter: probability, instances, outlines and table, and the scores against the truth."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from glomerulearn import stores
from glomerulearn.annotations import Outline, read_outlines
from glomerulearn.errors import InputError
from glomerulearn.export import write_geojson
from glomerulearn.glomeruli import add_labels, find_glomeruli, measure_glomeruli, polygons
from glomerulearn.inference import infer_slide
from glomerulearn.patches import PatchStore
from glomerulearn.scoring import GlomerulusCounts, PixelCounts, cross_entropy, match_glomeruli
from glomerulearn.training import load_segmenter

log = logging.getLogger(__name__)

_CHUNK_PX = 1024


def detect_glomeruli(
    patches: Path,
    model_folder: Path,
    annotation: Path | None,
    classes: Mapping[str, str],
    settings: Mapping,
    mask_target: Path,
    geojson_target: Path,
    table_target: Path,
    device: torch.device | None = None,
    threads: int = 1,
    progress=iter,
) -> pd.DataFrame:
    """Find the glomeruli of one slide; write the mask store, GeoJSON for QuPath (level-0 px) and the table (um).

    A slide that could not be tiled gives empty files, and the log says why.
    """
    torch.set_num_threads(threads)
    device = device or torch.device("cpu")
    store = PatchStore(patches)
    if store.usable:
        model, facts = load_segmenter(model_folder, device)
        probability = infer_slide(model, facts, store, settings, device, progress)
        labels = find_glomeruli(probability, store.mpp, settings)
        shapes = polygons(labels, store.scale)
        table = measure_glomeruli(store.slide, labels, shapes, probability, store.mpp, store.mpp_level0)
        table = add_labels(table, shapes, readable_outlines(annotation, classes))
        scale = {"mpp": store.mpp, "mpp_level0": store.mpp_level0}
    else:
        log.warning("slide %s has no patches: %s", store.slide, store.attributes["reason"])
        probability, labels, shapes, scale = np.zeros((0, 0), np.uint8), np.zeros((0, 0), np.int32), [], {}
        table = measure_glomeruli(store.slide, labels, shapes, probability, 1.0, 1.0)
    log.info("slide %s: %d glomeruli", store.slide, len(table))
    write_geojson(geojson_target, shapes, table.to_dict("records"))
    table.to_csv(table_target, index=False)
    with stores.writing(mask_target) as group:
        for name, values in (("probability", probability), ("instances", labels)):
            if values.size:
                chunks = tuple(min(_CHUNK_PX, length) for length in values.shape)
                group.create_array(name, data=values, chunks=chunks)
        group.attrs.update({"slide": store.slide, "status": store.attributes["status"], **scale})
    return table


def readable_outlines(annotation: Path | None, classes: Mapping[str, str]) -> list[Outline]:
    """The outlines of a file, or none where it cannot be used: tiling has already reported that slide."""
    try:
        return [] if annotation is None else read_outlines(annotation, classes)
    except InputError as error:
        log.error("%s", error)
        return []


class MaskStore(stores.StoreReader):
    """`probability` uint8 and `instances` int32, both (height, width) at `mpp`; sizes 0 for an unusable slide."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.slide: str = self.attributes["slide"]
        self.usable: bool = "probability" in self

    @property
    def probability(self) -> np.ndarray:
        return self.read("probability")

    @property
    def instances(self) -> np.ndarray:
        return self.read("instances")


SCORE_COLUMNS = (
    "segmenter", "slide", "split", "loss", "accuracy", "mean_iou", "dice", "precision", "recall", "f1_glomerulus",
    "n_glomeruli", "n_detected",
)  # fmt: skip


def score_slide(mask: MaskStore, patches: PatchStore, annotation: Path, classes: Mapping[str, str], scale_shapes) -> dict:
    """Counts of one whole slide: keys `pixels`, `glomeruli`, `loss_sum` (cross-entropy summed over its pixels).

    scale_shapes: the detected polygons in level-0 pixels.
    """
    width, height = patches.canvas
    truth = patches.label_window(0, 0, width, height) > 0
    probability = mask.probability
    outlines = [outline.polygon for outline in read_outlines(annotation, classes)]
    matched = len(match_glomeruli(scale_shapes, outlines))
    return {
        "pixels": PixelCounts.of(mask.instances > 0, truth),
        "glomeruli": GlomerulusCounts(matched, len(scale_shapes), len(outlines)),
        "loss_sum": cross_entropy(probability.astype(np.float32) / 255, truth),
    }


def score_segmenter(
    segmenter: str,
    slides: list[Mapping],
    classes: Mapping[str, str],
) -> pd.DataFrame:
    """Score a segmenter on whole stitched slides: one row per slide and one `all` per split (`SCORE_COLUMNS`).

    slides: mappings with `slide`, `split`, `mask`, `patches`, `annotation` (paths). `all` pools the pixels and the
    glomeruli of the split's slides, so that a large slide weighs more. Loss is the cross-entropy per pixel.
    """
    rows, totals = [], {}
    for item in slides:
        mask, patches = MaskStore(item["mask"]), PatchStore(item["patches"])
        if not (mask.usable and patches.usable and patches.annotated):
            log.warning("slide %s cannot be scored: %s", patches.slide, patches.attributes.get("reason"))
            continue
        counts = score_slide(
            mask, patches, item["annotation"], classes, polygons(mask.instances, patches.scale)
        )
        rows.append(_score_row(segmenter, item["slide"], item["split"], counts))
        total = totals.setdefault(item["split"], counts | {key: type(counts[key])() for key in counts})
        for key in counts:
            total[key] += counts[key]
    rows += [_score_row(segmenter, "all", split, counts) for split, counts in totals.items()]
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


def choose_segmenter(scores: pd.DataFrame) -> str:
    """The segmenter with the highest MeanIoU over the val slides; the test slides have no say."""
    val = scores[(scores["split"] == "val") & (scores["slide"] == "all")].dropna(subset="mean_iou")
    if val.empty:
        raise InputError("no val slide could be scored, so no segmenter can be chosen; see results/qc/slides.tsv")
    return str(val.sort_values("mean_iou", ascending=False, kind="stable")["segmenter"].iloc[0])
