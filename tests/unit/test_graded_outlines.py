"""Outlines come back with the grade as class, from green to red."""

import json

import pandas as pd
from shapely.geometry import box

from glomerulearn.graded_outlines import colour, grade_outlines
from glomerulearn.outlines import collection, feature


def test_every_outline_has_the_class_of_its_grade(tmp_path):
    features = [
        feature(box(i, 0, i + 1, 1), "Glomerulus", (255, 140, 0), name=f"S-{i}", measurements={"Area um^2": 5.0})
        for i in range(3)
    ]
    (tmp_path / "s.geojson").write_text(collection(features))
    table = pd.DataFrame({"grade": [0.0, 2.0, None], "sclerosis_axis": [-1.5, 2.25, None]}, ["S-0", "S-1", "S-2"])
    grade_outlines(table, tmp_path / "s.geojson", tmp_path / "graded.geojson")
    found = json.loads((tmp_path / "graded.geojson").read_text())["features"]
    classes = [each["properties"]["classification"] for each in found]
    assert [each["name"] for each in classes] == ["Grade 0", "Grade 2", "Glomerulus"]
    assert classes[0]["color"] == [35, 139, 69] and classes[1]["color"] == [189, 0, 38]
    measurements = [each["properties"]["measurements"] for each in found]
    assert measurements[1] == {"Area um^2": 5.0, "Sclerosis axis": 2.25} and "Sclerosis axis" not in measurements[2]
    assert [each["geometry"] for each in found] == [json.loads(json.dumps(each))["geometry"] for each in features]


def test_colours_go_from_green_over_yellow_to_red():
    assert [colour(share) for share in (0, 0.5, 1)] == [[35, 139, 69], [254, 196, 79], [189, 0, 38]]
    assert colour(0.25) == [144, 168, 74]
