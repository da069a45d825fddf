"""From probabilities to glomeruli: stitching, instances, polygons in level-0 pixels, tables in um, QuPath GeoJSON."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from shapely.geometry import Point, shape
from skimage.registration import phase_cross_correlation

from glomerulearn import inference
from glomerulearn.export import write_detections
from glomerulearn.glomeruli import TABLE_COLUMNS, find_glomeruli, measure_glomeruli, polygons
from glomerulearn.glomerulus_table import collect_glomeruli
from glomerulearn.inference import infer_slide
from glomerulearn.labels import label_crops, label_glomeruli
from glomerulearn.outlines import Outline
from glomerulearn.patches import PatchStore

SETTINGS = {
    "window_px": 128, "overlap_px": 32, "batch": 3, "zooms": [1], "flips": True, "threshold": 0.5, "seed_threshold": 0.7,
    "min_diameter_um": 60, "min_solidity": 0.75, "split_waist": 0.6,
}  # fmt: skip
CPU = torch.device("cpu")


class Darkness(torch.nn.Module):
    """A 'segmenter' whose logit is how dark a pixel is: stitched, it must give back the slide itself."""

    def forward(self, images):
        dark = -4 * images.mean(1, keepdim=True)
        return torch.cat([torch.zeros_like(dark), dark], 1)


@pytest.mark.parametrize("zoom", [0.6, 1, 1.333, 2])
def test_stitching_is_seamless(small_store, zoom):
    """Also where a segmenter sees windows enlarged; only the finest detail may blur a little then."""
    store = PatchStore(small_store)
    found = infer_slide(Darkness(), {"mpp": store.mpp}, store, SETTINGS | {"zooms": [zoom]}, CPU)
    image = store.window(0, 0, *store.canvas).astype(np.float32) / 127.5 - 1
    expected = 255 / (1 + np.exp(4 * image.mean(2)))
    assert found.shape == image.shape[:2]
    stored = np.zeros(found.shape, bool)
    for column, row in store.grid * store.patch_size:
        stored[row : row + store.patch_size, column : column + store.patch_size] = True
    if zoom != 1:  # grain is lost in enlarging and shrinking, and nothing else; half a pixel's shift would show
        shift_px = phase_cross_correlation(expected, found, upsample_factor=20)[0]
        assert np.abs(shift_px).max() <= 0.1
        blur_px = max(2, 2.5 / zoom)
        found, expected = (gaussian_filter(each.astype(np.float32), blur_px) for each in (found, expected))
    # bfloat16 on processors that have it: 8 bits of mantissa
    assert np.abs(found - expected)[stored].max() < 6


class Coarse(torch.nn.Module):
    """A 'segmenter' that sees only dark things at least 17 of its pixels wide."""

    def forward(self, images):
        pool = torch.nn.functional.max_pool2d
        smooth = torch.nn.functional.avg_pool2d(images.float().mean(1, keepdim=True), 3, stride=1, padding=1)
        dark = (smooth < 0.3).float()
        found = 20 * pool(-pool(-dark, 17, stride=1, padding=8), 17, stride=1, padding=8) - 10
        return torch.cat([-found, found], 1)


@pytest.mark.parametrize(("trained_in", "asked"), [("float32", "float32"), ("bfloat16", "auto"), (None, "auto")])
def test_slides_are_seen_in_the_precision_of_training(small_store, monkeypatch, trained_in, asked):
    seen = []
    real = inference.autocast
    monkeypatch.setattr(inference, "autocast", lambda *how: seen.append(how[0]) or real(*how))
    card = {"mpp": 2.0} | ({"settings": {"precision": trained_in}} if trained_in else {})
    infer_slide(Darkness(), card, PatchStore(small_store), SETTINGS, CPU)
    assert set(seen) == {asked}


def test_zooms_are_averaged(small_store):
    store = PatchStore(small_store)

    def found(*zooms):
        return infer_slide(Coarse(), {"mpp": store.mpp}, store, SETTINGS | {"zooms": list(zooms)}, CPU)

    one, two = found(1), found(2)
    assert (two > 127).sum() > (one > 127).sum() > 0  # half as wide is seen, too
    assert np.abs(found(1, 2) - (one.astype(np.float32) + two) / 2).max() <= 1


def discs(places, size=(400, 400)):
    y, x = np.mgrid[: size[0], : size[1]]
    probability = np.zeros(size, np.uint8)
    for cx, cy, radius in places:
        probability[np.hypot(x - cx, y - cy) <= radius] = 240
    return probability


def test_instances_sizes_and_touching_glomeruli():
    mpp = 4.0
    probability = discs([(80, 80, 25), (250, 100, 24), (294, 100, 24), (300, 300, 5)])  # two touch, one is too small
    weak = discs([(100, 300, 25)])
    probability[weak > 0] = 150  # above the threshold, nowhere sure
    labels = find_glomeruli(probability, mpp, SETTINGS)
    assert labels.max() == 3
    shapes = polygons(labels, scale=2.0)
    table = measure_glomeruli("S", labels, shapes, probability, mpp, mpp / 2)
    assert tuple(table.columns) == TABLE_COLUMNS and list(table["glomerulus"]) == ["S-0001", "S-0002", "S-0003"]
    first = table.iloc[0]
    assert first["area_um2"] == pytest.approx(np.pi * 100**2, rel=0.03)
    assert first["equivalent_diameter_um"] == pytest.approx(200, rel=0.02) and first["circularity"] > 0.85
    assert (first["centroid_x_px"], first["centroid_y_px"]) == (
        pytest.approx(161, abs=0.6),
        pytest.approx(161, abs=0.6),
    )
    assert not first["touches_border"] and first["mean_probability"] == pytest.approx(240 / 255, abs=0.01)


@pytest.mark.parametrize("radius", [10, 24, 60])
def test_a_waist_parts_glomeruli_of_any_size_and_an_oval_one_stays_whole(radius):
    """An oval has two middles that lie equally deep; beside another glomerulus it must not be taken for two."""
    at = 4 * radius
    oval = [(at, at, radius), (at + radius // 4, at, radius)]
    other = [(at + 2.15 * radius, at, radius)]
    labels = find_glomeruli(discs(oval + other, (8 * radius, 8 * radius)), 240 / radius, SETTINGS)
    assert labels.max() == 2
    left = np.s_[:, : at + radius // 2]
    assert len(np.unique(labels[left][discs(oval, labels.shape)[left] > 0])) == 1


def test_polygons_lie_on_the_mask():
    labels = find_glomeruli(discs([(120, 90, 30)]), 4.0, SETTINGS)
    (polygon,) = polygons(labels, 1.0)
    disc = Point(120.5, 90.5).buffer(30)
    assert polygon.is_valid and polygon.intersection(disc).area / polygon.union(disc).area > 0.97


def test_border_is_flagged_and_nothing_is_nothing():
    labels = find_glomeruli(discs([(10, 100, 25)]), 4.0, SETTINGS)
    table = measure_glomeruli("S", labels, polygons(labels, 1.0), discs([(10, 100, 25)]), 4.0, 4.0)
    assert list(table["touches_border"]) == [True]
    empty = find_glomeruli(np.zeros((50, 50), np.uint8), 4.0, SETTINGS)
    assert empty.max() == 0 and polygons(empty, 1.0) == []


def test_geojson_is_what_qupath_reads(tmp_path):
    labels = find_glomeruli(discs([(120, 90, 30)]), 4.0, SETTINGS)
    shapes = polygons(labels, 2.0)
    table = measure_glomeruli("S", labels, shapes, discs([(120, 90, 30)]), 4.0, 2.0)
    write_detections(tmp_path / "d.geojson", shapes, table.to_dict("records"))
    content = json.loads((tmp_path / "d.geojson").read_text())
    (feature,) = content["features"]
    assert content["type"] == "FeatureCollection" and "crs" not in content
    assert shape(feature["geometry"]).area == pytest.approx(shapes[0].area, rel=1e-3)
    properties = feature["properties"]
    assert properties["objectType"] == "annotation" and properties["classification"]["name"] == "Glomerulus"
    assert properties["measurements"]["Area um^2"] == table["area_um2"][0]
    write_detections(tmp_path / "none.geojson", [], [])
    assert json.loads((tmp_path / "none.geojson").read_text())["features"] == []


def test_table_of_the_cohort_keeps_every_glomerulus(tmp_path):
    labels = find_glomeruli(discs([(80, 80, 25), (250, 100, 24)]), 4.0, SETTINGS)
    table = measure_glomeruli("NA", labels, polygons(labels, 1.0), labels.astype(np.uint8), 4.0, 4.0)
    table.to_csv(tmp_path / "d.csv", index=False)
    # the second crop could not be read; another slide brought its crops along
    rows = [{"slide": "NA", "glomerulus": "NA-0001", "cut": False, "pca": 1}]
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    rows = [{"slide": "own", "glomerulus": "g", "cut": False, "pca": 0}]
    pd.DataFrame(rows).to_csv(tmp_path / "b.csv", index=False)
    label_crops([{"glomerulus": "g", "label": "normal"}]).to_csv(tmp_path / "l.csv", index=False)
    files = [tmp_path / "d.csv"], [tmp_path / "l.csv"], [tmp_path / "a.csv", tmp_path / "b.csv"]
    joined = collect_glomeruli(*files).set_index("glomerulus")
    assert set(joined.index) == {"NA-0001", "NA-0002", "g"}
    assert joined.loc["NA-0001", "pca"] == 1 and pd.isna(joined.loc["NA-0002", "pca"])
    assert joined.loc["g", "label"] == "normal" and pd.isna(joined.loc["g", "area_um2"])
    assert joined.loc["NA-0001", "label"] == "" and not joined["label"].isna().any()
    assert len(collect_glomeruli(files[0], [], files[2])) == 3


def test_labels_come_from_outlines_and_the_label_sheet(tmp_path, caplog):
    """An outline labels what it matches; a row of the sheet wins, by name or by place, in pixels or um."""
    labels = find_glomeruli(discs([(80, 80, 25), (250, 100, 24), (120, 300, 30)]), 4.0, SETTINGS)
    shapes = polygons(labels, 2.0)
    table = measure_glomeruli("S", labels, shapes, labels.astype(np.uint8), 4.0, 2.0)
    write_detections(tmp_path / "d.geojson", shapes, table.to_dict("records"))
    drawn = [Outline(Point(161, 161).buffer(52), "normal"), Outline(Point(501, 201).buffer(46), "sclerosed")]
    none = dict.fromkeys(("x_px", "y_px", "x_um", "y_um")) | {"glomerulus": ""}

    def found(*rows, mpp=2.0):
        rows = [none | row for row in rows]
        return dict(label_glomeruli(tmp_path / "d.geojson", drawn, rows, mpp)[["glomerulus", "label"]].to_numpy())

    assert found() == {"S-0001": "normal", "S-0002": "sclerosed"}
    assert found({"glomerulus": "S-0001", "label": "x"})["S-0001"] == "x"
    assert found({"x_px": 240.0, "y_px": 600.0, "label": "x"})["S-0003"] == "x"
    assert found({"x_um": 480.0, "y_um": 1200.0, "label": "x"})["S-0003"] == "x"
    assert (
        found({"x_px": 5.0, "y_px": 5.0, "label": "lost"}) == found() and "'lost' at x_px 5.0, y_px 5.0" in caplog.text
    )
    assert found({"glomerulus": "S-0009", "label": "x"}) == found() and "S-0009" in caplog.text
