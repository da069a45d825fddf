"""Score segmenters on whole slides against the pathologist's outlines, and tell whether one is better than the other."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from shapely.geometry import Polygon

from glomerulearn.glomeruli import polygons
from glomerulearn.masks import MaskStore
from glomerulearn.patches import PatchStore
from glomerulearn.scoring import (
    Calibration,
    GlomerulusCounts,
    PixelCounts,
    average_precision,
    boundary_distance,
    cross_entropy,
    match_glomeruli,
)

log = logging.getLogger(__name__)

SCORE_COLUMNS = (
    "segmenter", "slide", "split", "loss", "accuracy", "mean_iou", "dice", "precision", "recall", "f1_glomerulus",
    "n_glomeruli", "n_detected", "ap50", "boundary_um", "count_error", "area_error", "ece",
)  # fmt: skip
COUNT_COLUMNS = ("n_matched", "tp_px", "fp_px", "fn_px", "tn_px")
COMPARED = ("dice", "mean_iou", "f1_glomerulus")
_RESAMPLES = 2000


@dataclass
class Tally:
    """What a segmenter did on some slides, to be added up: the scores of all are those of the pooled slides."""

    pixels: PixelCounts = field(default_factory=PixelCounts)
    glomeruli: GlomerulusCounts = field(default_factory=GlomerulusCounts)
    calibration: Calibration = field(default_factory=Calibration)
    loss_sum: float = 0.0  # cross-entropy summed over the pixels
    confidences: list[float] = field(default_factory=list)  # of every detection, its mean probability
    hits: list[bool] = field(default_factory=list)  # whether it matches a glomerulus
    boundaries_um: list[float] = field(default_factory=list)  # of every match
    found_um2: float = 0.0
    true_um2: float = 0.0
    labels: Counter = field(default_factory=Counter)  # (label, found or not) -> glomeruli

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def score_slide(mask: MaskStore, patches: PatchStore, detected: Sequence[Polygon]) -> Tally:
    """Compare one whole slide with its outlines. detected: the detected polygons in level-0 pixels, in order of instance."""
    truth = patches.truth() > 0
    probability, instances = mask.probability, mask.instances
    outlines = [outline.polygon for outline in patches.outlines]
    matches = match_glomeruli(detected, outlines)
    found, seen = ({pair[place] for pair in matches} for place in (0, 1))
    sizes = np.bincount(instances.ravel(), minlength=len(detected) + 1)[1:]
    sums = np.bincount(instances.ravel(), probability.ravel(), minlength=len(detected) + 1)[1:]
    mpp = patches.mpp_level0
    return Tally(
        PixelCounts.of(instances > 0, truth),
        GlomerulusCounts(len(matches), len(detected), len(outlines)),
        Calibration.of(probability, truth),
        cross_entropy(probability.astype(np.float32) / 255, truth),
        (sums / np.maximum(sizes, 1) / 255).tolist(),
        [index in found for index in range(len(detected))],
        [boundary_distance(detected[one], outlines[other]) * mpp for one, other, _ in matches],
        sum(polygon.area for polygon in detected) * mpp**2,
        sum(polygon.area for polygon in outlines) * mpp**2,
        Counter((outline.label, index in seen) for index, outline in enumerate(patches.outlines)),
    )


def score_segmenter(segmenter: str, split: str, slides: Sequence[tuple[Path, Path, Path]]) -> pd.DataFrame:
    """Score a segmenter on the whole, stitched slides of a split: one row per slide and one `all`.

    Columns: `SCORE_COLUMNS`, `recall_<label>` for every label (share of its glomeruli that were found), `COUNT_COLUMNS`.
    slides: of each the mask store, the patch store and the outlines. `all` pools the pixels and the glomeruli of the slides, so
    that a large slide weighs more. Loss is the cross-entropy per pixel.
    """
    rows, total, labels = [], Tally(), []
    for mask_path, *slide in slides:
        mask, patches = MaskStore(mask_path), PatchStore(*slide)
        labels = patches.labels
        if not (mask.usable and patches.usable and patches.annotated):
            log.warning("slide %s cannot be scored: %s", patches.slide, patches.why_unscored)
            continue
        tally = score_slide(mask, patches, polygons(mask.instances, patches.scale))
        rows.append(_score_row(segmenter, patches.slide, split, tally, labels))
        total += tally
    if rows:
        rows.append(_score_row(segmenter, "all", split, total, labels))
    return pd.DataFrame(rows, columns=[*SCORE_COLUMNS, *(f"recall_{label}" for label in labels), *COUNT_COLUMNS])


def _score_row(segmenter: str, slide: str, split: str, tally: Tally, labels: Sequence[str]) -> dict:
    pixels, glomeruli = tally.pixels, tally.glomeruli
    total = pixels.true_positive + pixels.false_positive + pixels.false_negative + pixels.true_negative
    row = {
        "segmenter": segmenter,
        "slide": slide,
        "split": split,
        "loss": tally.loss_sum / total,
        "accuracy": pixels.accuracy,
        "mean_iou": pixels.mean_iou,
        "dice": pixels.dice,
        "precision": pixels.precision,
        "recall": pixels.recall,
        "f1_glomerulus": glomeruli.f1,
        "n_glomeruli": glomeruli.true,
        "n_detected": glomeruli.predicted,
        "ap50": average_precision(tally.confidences, tally.hits, glomeruli.true),
        "boundary_um": float(np.mean(tally.boundaries_um)) if tally.boundaries_um else float("nan"),
        "count_error": glomeruli.predicted - glomeruli.true,
        "area_error": tally.found_um2 / tally.true_um2 - 1 if tally.true_um2 else float("nan"),
        "ece": tally.calibration.ece,
        "n_matched": glomeruli.matched,
        "tp_px": pixels.true_positive,
        "fp_px": pixels.false_positive,
        "fn_px": pixels.false_negative,
        "tn_px": pixels.true_negative,
    }
    for label in labels:
        seen, missed = tally.labels[label, True], tally.labels[label, False]
        row[f"recall_{label}"] = seen / (seen + missed) if seen + missed else float("nan")
    return row


_COUNTED = ("tp_px", "fp_px", "fn_px", "tn_px", "n_matched", "n_detected", "n_glomeruli")


def pooled(counts: np.ndarray) -> dict[str, float]:
    """Scores of some slides together (`COMPARED`), from the sums over them of `_COUNTED`."""
    pixels, glomeruli = PixelCounts(*counts[:4].tolist()), GlomerulusCounts(*counts[4:].tolist())
    return {"dice": pixels.dice, "mean_iou": pixels.mean_iou, "f1_glomerulus": glomeruli.f1}


def score_groups(scores: pd.DataFrame, groups: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Pooled scores of the slides of every site, stain or other group; one row per segmenter, split, group and value.

    scores: rows of slides; groups: name of the group (`site`, ...) -> slide -> value ("" = unknown, left out).
    """
    rows = []
    slides = scores[scores["slide"] != "all"]
    for (segmenter, split), part in slides.groupby(["segmenter", "split"], sort=False):
        for group, values in groups.items():
            for value, own in part.groupby(part["slide"].map(values), sort=True):
                if value:
                    place = {"segmenter": segmenter, "split": split, "group": group, "value": value}
                    rows.append(
                        place
                        | {
                            "n_slides": len(own),
                            **pooled(_counts(own).sum(axis=0)),
                            "n_glomeruli": int(own["n_glomeruli"].sum()),
                        }
                    )
    return pd.DataFrame(rows, columns=["segmenter", "split", "group", "value", "n_slides", *COMPARED, "n_glomeruli"])


def compare_segmenters(scores: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Intervals and paired differences over slides, of every split: what another choice of slides might have given.

    Per segmenter: the pooled score with a 95 % bootstrap interval (percentiles of 2,000 draws of slides; Efron 1979). Per pair:
    the mean difference over slides, its interval likewise, and the p value of the sign-flip permutation test (exact up
    to 12 slides). Few slides give wide intervals, and p values that cannot be small: 2 / 2^n at best.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for split, part in scores[scores["slide"] != "all"].groupby("split", sort=False):
        tables = {name: own.set_index("slide").sort_index() for name, own in part.groupby("segmenter", sort=False)}
        for name, table in tables.items():
            counts = _counts(table)
            draws = [
                pooled(each) for each in counts[rng.integers(len(table), size=(_RESAMPLES, len(table)))].sum(axis=1)
            ]
            for metric, value in pooled(counts.sum(axis=0)).items():
                low, high = np.nanpercentile([draw[metric] for draw in draws], [2.5, 97.5])
                rows.append([split, metric, name, "", len(table), value, low, high, float("nan")])
        names = list(tables)
        for one, other in ((a, b) for i, a in enumerate(names) for b in names[i + 1 :]):
            for metric in COMPARED:
                difference = (tables[one][metric] - tables[other][metric]).dropna().to_numpy()
                if len(difference) < 2:
                    continue
                means = rng.choice(difference, (_RESAMPLES, len(difference))).mean(axis=1)
                low, high = np.percentile(means, [2.5, 97.5])
                rows.append(
                    [
                        split,
                        metric,
                        one,
                        other,
                        len(difference),
                        difference.mean(),
                        low,
                        high,
                        _sign_flip(difference, rng),
                    ]
                )
    columns = ["split", "metric", "segmenter", "minus", "n_slides", "value", "low", "high", "p"]
    return pd.DataFrame(rows, columns=columns)


def join_folds(tables: Sequence[pd.DataFrame], held: Sequence[str]) -> pd.DataFrame:
    """The pooled scores of every fold, then their mean and standard deviation (`fold` = mean, sd) per segmenter.

    tables: the scores of one segmenter and fold each (`unet.fold1`), all folds of a segmenter in turn; held: what each fold
    holds out.
    """
    rows = []
    for number, table in enumerate(tables):
        own = table[table["slide"] == "all"].drop(columns=["slide", "split"])
        fold = number % len(held)
        rows.append(own.assign(fold=str(fold + 1), held=held[fold], n_slides=len(table) - 1))
    folds = pd.concat(rows)
    folds["segmenter"] = folds["segmenter"].str.partition(".fold")[0]
    columns = ["segmenter", "fold", "held", "n_slides", *folds.columns.drop(["segmenter", "fold", "held", "n_slides"])]
    summary = [
        getattr(own.drop(columns=["segmenter", "fold", "held"]), how)()
        .to_frame()
        .T.assign(segmenter=name, fold=label, held="")
        for name, own in folds.groupby("segmenter", sort=False)
        for how, label in (("mean", "mean"), ("std", "sd"))
    ]
    return pd.concat([folds, *summary])[columns]


def _counts(rows: pd.DataFrame) -> np.ndarray:
    return rows[list(_COUNTED)].to_numpy(np.int64)


def _sign_flip(difference: np.ndarray, rng: np.random.Generator) -> float:
    if not difference.any():
        return 1.0
    return float(
        stats.permutation_test(
            (difference,), np.mean, permutation_type="samples", n_resamples=4999, vectorized=True, rng=rng
        ).pvalue
    )
