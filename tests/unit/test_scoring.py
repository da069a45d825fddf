"""Metrics against cases worked out by hand and against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
import shapely
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, precision_score, recall_score

from glomerulearn.comparison import compare_segmenters, join_folds, score_groups
from glomerulearn.errors import InputError
from glomerulearn.scoring import (
    Calibration,
    GlomerulusCounts,
    PixelCounts,
    average_precision,
    boundary_distance,
    choose_segmenter,
    cross_entropy,
    match_glomeruli,
)


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


def test_calibration_by_hand():
    # 4 pixels at 0.2 of which 1 is glomerulus, 4 at 0.8 of which 4 are: (4 |0.2 - 0.25| + 4 |0.8 - 1|) / 8
    probability = np.array([51] * 4 + [204] * 4, np.uint8)
    truth = np.array([1, 0, 0, 0, 1, 1, 1, 1], bool)
    assert Calibration.of(probability, truth).ece == pytest.approx((4 * 0.05 + 4 * 0.2) / 8)
    parts = Calibration.of(probability[:3], truth[:3]) + Calibration.of(probability[3:], truth[3:])
    assert parts.ece == Calibration.of(probability, truth).ece


def test_calibration_as_torchmetrics():
    torch, torchmetrics = pytest.importorskip("torch"), pytest.importorskip("torchmetrics")
    rng = np.random.default_rng(0)
    probability = rng.integers(0, 256, 20_000).astype(np.uint8)
    truth = rng.random(20_000) < (probability / 255) ** 1.5
    peer = torchmetrics.classification.BinaryCalibrationError(n_bins=15, norm="l1")
    expected = peer(torch.from_numpy(probability / 255), torch.from_numpy(truth.astype(int)))
    assert Calibration.of(probability, truth).ece == pytest.approx(float(expected), abs=0.002)


def test_average_precision_by_hand():
    # hit, miss, hit of 4 glomeruli: precision 1 up to recall 0.25, 2/3 up to 0.5, then 0
    found = average_precision([0.9, 0.8, 0.7], [True, False, True], 4)
    assert found == pytest.approx((26 * 1 + 25 * 2 / 3) / 101)
    assert average_precision([], [], 3) == 0 and np.isnan(average_precision([0.5], [False], 0))
    assert average_precision([0.1, 0.9], [True, True], 2) == 1


def test_average_precision_as_torchmetrics():
    torch, detection = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.detection")
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 900, (60, 2))
    truth = np.hstack([corners, corners + rng.uniform(30, 80, (60, 2))])
    found = np.vstack([truth[:45] + rng.normal(0, 6, (45, 4)), np.hstack([c := rng.uniform(0, 900, (20, 2)), c + 50])])
    scores = rng.random(len(found))
    peer = detection.MeanAveragePrecision(iou_thresholds=[0.5], max_detection_thresholds=[1, 10, 1000])
    one = torch.ones(1, dtype=torch.int64)
    peer.update(
        [{"boxes": torch.from_numpy(found), "scores": torch.from_numpy(scores), "labels": one.repeat(len(found))}],
        [{"boxes": torch.from_numpy(truth), "labels": one.repeat(len(truth))}],
    )
    matches = match_glomeruli([shapely.box(*each) for each in found], [shapely.box(*each) for each in truth])
    hits = {index for index, _, _ in matches}
    ours = average_precision(scores, [index in hits for index in range(len(found))], len(truth))
    assert ours == pytest.approx(float(peer.compute()["map_50"]), abs=0.01)


def test_boundary_distance():
    square = shapely.box(0, 0, 100, 100)
    assert boundary_distance(square, square) == 0
    # a frame 10 wide: points of the inner square are 10 away, those of the outer 10, and up to 14 at its corners
    assert boundary_distance(square, shapely.box(10, 10, 90, 90)) == pytest.approx(10.1, abs=0.15)
    assert boundary_distance(shapely.Point(0, 0).buffer(50), shapely.Point(0, 0).buffer(53)) == pytest.approx(
        3, abs=0.05
    )


def test_boundary_distance_as_distance_transforms():
    from scipy import ndimage

    from glomerulearn.outlines import Drawing, Outline

    first, second = shapely.Point(60, 60).buffer(40), shapely.Point(66, 58).buffer(36, quad_segs=4)
    masks = [Drawing([Outline(each, "a")], ["a"], 0.25).window(0, 0, 480, 480) > 0 for each in (first, second)]
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in masks]
    there = [ndimage.distance_transform_edt(~edge)[other] for edge, other in (edges, edges[::-1])]
    assert boundary_distance(first, second) == pytest.approx(np.concatenate(there).mean() * 0.25, abs=0.15)


def scores(difference, count=8):
    rng = np.random.default_rng(0)
    rows = []
    for slide in range(count):
        base = int(rng.integers(500, 800))
        for name, extra in (("segnet", 0), ("unet", int(difference * (1 + slide % 3)))):
            right = base + extra
            counts = PixelCounts(right, 200, 1000 - right, 10_000)
            rows.append(
                {"segmenter": name, "slide": f"s{slide}", "split": "test", "dice": counts.dice, "mean_iou": counts.mean_iou,
                 "f1_glomerulus": 0.8, "tp_px": right, "fp_px": 200, "fn_px": 1000 - right, "tn_px": 10_000, "n_matched": 8,
                 "n_detected": 10, "n_glomeruli": 10}
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_a_real_difference_is_told_from_none():
    table = compare_segmenters(scores(40)).set_index(["metric", "segmenter", "minus"])
    pair = table.loc["dice", "segnet", "unet"]
    assert pair["high"] < 0 and pair["p"] == pytest.approx(2 / 2**8)  # every slide the same way: as small as it can be
    alone = table.loc["dice", "unet", ""]
    assert alone["low"] < alone["value"] < alone["high"] and alone["n_slides"] == 8
    same = compare_segmenters(scores(0)).set_index(["metric", "segmenter", "minus"]).loc["dice", "segnet", "unet"]
    assert same["p"] == 1 and same["value"] == 0


def test_groups_pool_their_slides():
    table = scores(40)
    sites = {f"s{slide}": "A" if slide < 3 else "" if slide == 7 else "B" for slide in range(8)}
    groups = score_groups(table, {"site": sites}).set_index(["segmenter", "value"])
    own = table[(table["segmenter"] == "unet") & table["slide"].isin(["s0", "s1", "s2"])]
    dice = 2 * own["tp_px"].sum() / (2 * own["tp_px"] + own["fp_px"] + own["fn_px"]).sum()
    assert groups.loc[("unet", "A"), "dice"] == pytest.approx(dice) and groups.loc[("unet", "B"), "n_slides"] == 4
    assert len(groups) == 4


def test_folds_are_joined_with_mean_and_spread():
    tables = [
        pd.DataFrame(
            {"segmenter": f"{name}.fold{fold}", "slide": ["s1", "s2", "all"], "split": "held", "dice": [0.1, 0.2, dice]}
        )
        for name, values in (("segnet", (0.5, 0.7)), ("unet", (0.8, 0.6)))
        for fold, dice in enumerate(values, start=1)
    ]
    table = join_folds(tables, ["Lyon", "Graz"]).set_index(["segmenter", "fold"])
    assert table.loc[("unet", "2"), "held"] == "Graz" and table.loc[("unet", "2"), "dice"] == 0.6
    assert table.loc[("segnet", "mean"), "dice"] == pytest.approx(0.6) and len(table) == 2 * (2 + 2)
    assert (
        table.loc[("unet", "sd"), "dice"] == pytest.approx(0.1 * 2**0.5) and table.loc[("unet", "1"), "n_slides"] == 2
    )
