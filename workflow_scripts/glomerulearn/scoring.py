"""How good is a segmentation? Pixels and glomeruli, on whole slides."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd
import shapely
from shapely.geometry.base import BaseGeometry

from glomerulearn.errors import InputError

_BINS = 15  # of the calibration error


@dataclass
class PixelCounts:
    """The confusion of glomerulus against background over pixels; add them up over slides."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    @classmethod
    def of(cls, predicted: np.ndarray, truth: np.ndarray) -> "PixelCounts":
        """Count two boolean arrays of the same shape."""
        both = int(np.sum(predicted & truth))
        positive, true = int(predicted.sum()), int(truth.sum())
        return cls(both, positive - both, true - both, truth.size - positive - true + both)

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        return PixelCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def accuracy(self) -> float:
        total = self.true_positive + self.false_positive + self.false_negative + self.true_negative
        return _ratio(self.true_positive + self.true_negative, total)

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN); not a number where neither has a glomerulus."""
        return _ratio(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)

    @property
    def mean_iou(self) -> float:
        """Mean of the IoU of glomerulus and of background; a class that neither has is left out."""
        wrong = self.false_positive + self.false_negative
        return float(
            np.nanmean([_ratio(self.true_positive, self.true_positive + wrong),
                        _ratio(self.true_negative, self.true_negative + wrong)])
        )  # fmt: skip

    @property
    def precision(self) -> float:
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        return _ratio(self.true_positive, self.true_positive + self.false_negative)


@dataclass
class GlomerulusCounts:
    """Glomeruli found, invented and missed."""

    matched: int = 0
    predicted: int = 0
    true: int = 0

    def __add__(self, other: "GlomerulusCounts") -> "GlomerulusCounts":
        return GlomerulusCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def f1(self) -> float:
        """2 matched / (predicted + true); not a number where there is nothing to find and nothing was found."""
        return _ratio(2 * self.matched, self.predicted + self.true)


@dataclass
class Calibration:
    """How often the truth is glomerulus where the segmenter says so with some probability: sums per bin of probability."""

    pixels: np.ndarray = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    probability: np.ndarray = field(default_factory=lambda: np.zeros(_BINS))
    glomerulus: np.ndarray = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    @classmethod
    def of(cls, probability: np.ndarray, truth: np.ndarray) -> "Calibration":
        """probability: uint8, 255 = certain; truth: bool, of the same shape."""
        # 256 values only: count each, then put them into bins
        counts = np.bincount(probability.ravel(), minlength=256)
        positives = np.bincount(probability[truth], minlength=256)
        values = np.arange(256) / 255
        bins = np.minimum((values * _BINS).astype(int), _BINS - 1)
        sums = (np.bincount(bins, weights, _BINS) for weights in (counts, counts * values, positives))
        pixels, total, glomerulus = sums
        return cls(pixels.astype(np.int64), total, glomerulus.astype(np.int64))

    def __add__(self, other: "Calibration") -> "Calibration":
        return Calibration(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def ece(self) -> float:
        """Expected calibration error over 15 bins (Guo et al. 2017), of the probability of glomerulus."""
        return _ratio(float(np.abs(self.probability - self.glomerulus).sum()), int(self.pixels.sum()))


def average_precision(confidences: Sequence[float], hits: Sequence[bool], true: int) -> float:
    """Area under precision over recall, at the 101 recalls that COCO takes; not a number where nothing is to be found.

    confidences: of every detection; hits: whether it matches a glomerulus; true: how many there are.
    """
    if not true:
        return float("nan")
    order = np.argsort(-np.asarray(confidences, float), kind="stable")
    found = np.cumsum(np.asarray(hits, bool)[order])
    precision = found / np.arange(1, len(found) + 1)
    # the best precision at this recall or more
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(found / true, np.linspace(0, 1, 101), side="left")
    return float(np.append(precision, 0.0)[np.minimum(places, len(precision))].mean())


def boundary_distance(first: BaseGeometry, second: BaseGeometry, step: float = 1.0) -> float:
    """Mean distance from the boundary of one to that of the other, both ways, in their own unit; a point every `step`.

    The average symmetric surface distance of segmentation challenges (Heimann et al. 2009), between polygons.
    """
    distances = []
    for own, other in ((first.boundary, second.boundary), (second.boundary, first.boundary)):
        points = (
            shapely.line_interpolate_point(own, np.arange(0, own.length, step))
            if own.geom_type == "LineString"
            else [
                shapely.line_interpolate_point(line, place)
                for line in own.geoms
                for place in np.arange(0, line.length, step)
            ]
        )
        distances.append(shapely.distance(points, other))
    return float(np.concatenate(distances).mean())


def match_glomeruli(
    predicted: Sequence[BaseGeometry], truth: Sequence[BaseGeometry], min_iou: float = 0.5
) -> list[tuple[int, int, float]]:
    """Pair predicted with true polygons one to one, best IoU first: list of (predicted index, true index, IoU)."""
    tree = shapely.STRtree(list(truth))
    pairs = []
    for index, polygon in enumerate(predicted):
        for other in tree.query(polygon, predicate="intersects") if len(truth) else ():
            overlap = polygon.intersection(truth[other]).area
            iou = overlap / (polygon.area + truth[other].area - overlap)
            if iou >= min_iou:
                pairs.append((index, int(other), float(iou)))
    taken_predicted, taken_true, matches = set(), set(), []
    for index, other, iou in sorted(pairs, key=lambda pair: -pair[2]):
        if index not in taken_predicted and other not in taken_true:
            taken_predicted.add(index)
            taken_true.add(other)
            matches.append((index, other, iou))
    return matches


def cross_entropy(probability: np.ndarray, truth: np.ndarray) -> float:
    """Sum of -log p(true class) over pixels; probability in 0..1 (clipped to 8-bit resolution), truth bool."""
    probability = np.clip(probability, 1 / 510, 1 - 1 / 510)
    return float(-np.log(np.where(truth, probability, 1 - probability), dtype=np.float64).sum())


def read_scores(path: Path) -> pd.DataFrame:
    """A table of scores; a slide may be called NA."""
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    names = ["segmenter", "slide", "split"]
    numbers = table.drop(columns=names).apply(pd.to_numeric)
    return pd.concat([table[names], numbers], axis=1)


def choose_segmenter(scores: pd.DataFrame) -> str:
    """The segmenter with the highest MeanIoU over the val slides; the test slides have no say."""
    val = scores[(scores["split"] == "val") & (scores["slide"] == "all")].dropna(subset="mean_iou")
    if val.empty:
        raise InputError("no val slide could be scored, so no segmenter can be chosen; see results/qc/slides.tsv")
    return str(val.sort_values("mean_iou", ascending=False, kind="stable")["segmenter"].iloc[0])


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
