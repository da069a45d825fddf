"""Metrics against cases worked out by hand and against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
import shapely
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

from glomerulearn.errors import InputError
from glomerulearn.scoring import GlomerulusCounts, PixelCounts, choose_segmenter, cross_entropy, match_glomeruli


def test_pixels_by_hand():
    counts = PixelCounts(true_positive=6, false_positive=2, false_negative=4, true_negative=88)
    assert counts.accuracy == 0.94
    assert counts.dice == pytest.approx(12 / 18)
    assert counts.mean_iou == pytest.approx((6 / 12 + 88 / 94) / 2)
    assert (counts.precision, counts.recall) == (0.75, 0.6)


def test_pixels_as_scikit_learn():
    rng = np.random.default_rng(0)
    predicted, truth = rng.random((2, 50, 40)) > 0.6
    counts = PixelCounts.of(predicted[:20], truth[:20]) + PixelCounts.of(predicted[20:], truth[20:])
    pair = truth.ravel(), predicted.ravel()
    assert counts.accuracy == pytest.approx(accuracy_score(*pair))
    assert counts.dice == pytest.approx(f1_score(*pair))
    assert counts.mean_iou == pytest.approx(jaccard_score(*pair, average="macro"))
    assert counts.precision == pytest.approx(precision_score(*pair))
    assert counts.recall == pytest.approx(recall_score(*pair))


def test_a_slide_without_glomeruli():
    right = PixelCounts.of(np.zeros((4, 4), bool), np.zeros((4, 4), bool))
    assert right.accuracy == 1 and right.mean_iou == 1 and np.isnan(right.dice)
    assert np.isnan(GlomerulusCounts().f1) and GlomerulusCounts(0, 3, 0).f1 == 0


def test_glomeruli_match_one_to_one_at_iou_half():
    truth = [shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10), shapely.box(40, 0, 50, 10)]
    found = [
        shapely.box(0, 0, 10, 6),
        shapely.box(0, 5, 10, 10),
        shapely.box(20, 5, 30, 15),
        shapely.box(40, 0, 50, 10),
    ]
    # IoU 0.6 wins over 0.5; (5 x 10) / 150 = 0.33 is none; the last is perfect
    assert match_glomeruli(found, truth) == [(3, 2, 1.0), (0, 0, pytest.approx(0.6))]
    assert GlomerulusCounts(2, 4, 3).f1 == pytest.approx(4 / 7)
    assert match_glomeruli([], truth) == [] and match_glomeruli(found, []) == []


def test_cross_entropy_by_hand():
    loss = cross_entropy(np.array([[0.8, 0.1]]), np.array([[True, False]]))
    assert loss == pytest.approx(-np.log(0.8) - np.log(0.9))


def test_choice_is_by_val_alone():
    rows = [
        ("segnet", "all", "val", 0.8),
        ("unet", "all", "val", 0.7),
        ("unet", "all", "test", 0.99),
        ("unet", "x", "val", 1),
    ]
    table = pd.DataFrame(rows, columns=["segmenter", "slide", "split", "mean_iou"])
    assert choose_segmenter(table) == "segnet"
    with pytest.raises(InputError, match="no val slide"):
        choose_segmenter(table[table["split"] == "test"])
