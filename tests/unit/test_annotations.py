"""Outlines: real QuPath files read with nothing lost in silence; drawing is exact."""

import json
import logging

import numpy as np
import pytest
import shapely

from glomerulearn.annotations import Outline, rasterise, read_outlines
from glomerulearn.errors import InputError

KIDNEY = {"Normal": "normal", "Sclerosed": "sclerosed"}


def feature(geometry, name=None):
    properties = {"classification": {"name": name}} if name else {}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def square(side=10):
    ring = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
    return {"type": "Polygon", "coordinates": [ring]}


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_every_glomerulus_of_kidney_mini(shared):
    folder = shared / "kidney-mini" / "annotations"
    labels = [outline.label for path in sorted(folder.glob("*.geojson")) for outline in read_outlines(path, KIDNEY)]
    assert len(labels) == 788 and labels.count("normal") == 649 and labels.count("sclerosed") == 139


def test_real_qupath_files(shared):
    folder = shared / "annotation-formats"
    unclassified = read_outlines(folder / "TPATH082.geojson", {"": "glomerulus"})
    assert unclassified and all(outline.polygon.area > 0 for outline in unclassified)
    (holed,) = read_outlines(folder / "histoqc_holed.geojson", {"": "glomerulus"})
    parts = getattr(holed.polygon, "geoms", [holed.polygon])
    assert sum(len(part.interiors) for part in parts) > 0


@pytest.mark.parametrize("wrap", [lambda f: {"type": "FeatureCollection", "features": [f]}, lambda f: [f], lambda f: f])
def test_three_shapes_of_geojson(tmp_path, wrap):
    path = write(tmp_path / "o.geojson", wrap(feature(square(), "NORMAL")))
    assert [outline.label for outline in read_outlines(path, KIDNEY)] == ["normal"]


def test_dirt_is_counted_in_the_log(tmp_path, caplog):
    bowtie = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    line = {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}
    features = [
        feature(square(), "Normal"),
        feature(bowtie, "Normal"),
        feature(line, "Normal"),
        feature(square(), "Vein"),
    ]
    with caplog.at_level(logging.INFO):
        outlines = read_outlines(write(tmp_path / "o.geojson", features), KIDNEY)
    assert len(outlines) == 2 and outlines[1].polygon.is_valid and outlines[1].polygon.area == 50
    assert "LineString encloses no area" in caplog.text and "'Vein' is not in outlines: classes" in caplog.text


def test_no_usable_outline_is_an_error(tmp_path):
    path = write(tmp_path / "o.geojson", [feature(square(), "Glom")] * 3)
    with pytest.raises(InputError, match=r"o\.geojson: 3 features.*'Glom': 3.*outlines: classes"):
        read_outlines(path, KIDNEY)
    assert read_outlines(write(tmp_path / "e.geojson", []), KIDNEY) == []
    (tmp_path / "x.geojson").write_text("<xml/>")
    with pytest.raises(InputError, match=r"x\.geojson: not a GeoJSON"):
        read_outlines(tmp_path / "x.geojson", KIDNEY)


def test_drawing_keeps_area_place_and_holes():
    centre, scale = (103.3, 87.6), 2.5
    disc = shapely.Point(centre).buffer(60).difference(shapely.Point(centre).buffer(20))
    drawn = rasterise([Outline(disc, "b")], ["a", "b"], scale, 3, 5, (70, 60))
    assert set(np.unique(drawn)) == {0, 2}
    assert abs((drawn > 0).sum() * scale**2 / disc.area - 1) < 0.01
    rows, columns = np.nonzero(drawn)
    found = (columns.mean() + 0.5 + 3) * scale, (rows.mean() + 0.5 + 5) * scale
    assert np.hypot(found[0] - centre[0], found[1] - centre[1]) < 0.1 * scale
    assert drawn[int(centre[1] / scale) - 5, int(centre[0] / scale) - 3] == 0
