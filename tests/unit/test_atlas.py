"""The atlas page shows every grade in order, what is unlike its label, and no name as HTML."""

import re
from html import unescape

import numpy as np
import pandas as pd

from glomerulearn import atlas
from glomerulearn.crops import write_crops

GRADES = {"extractor": "efficientnet", "reducer": "umap", "method": "silhouette"}


def make(folder, n, odd=()):
    """A cohort of n glomeruli of each of two grades: the page, and what it says of each glomerulus."""
    rows = []
    for index in range(2 * n):
        grade = index % 2
        label = ["normal", "sclerosed"][grade if index not in odd else 1 - grade] if index else ""
        rows.append({
            "slide": "<b>&S", "glomerulus": f"<b>&S-{index:04d}", "label": label, "grade": grade, "cut": index == 4,
            "sclerosis_axis": grade + index / 100, "centroid_x_px": 10.0 * index, "centroid_y_px": 7.0,
            "equivalent_diameter_um": 180.0,
        })  # fmt: skip
    lost = rows[0] | {"glomerulus": "no crop", "grade": None, "sclerosis_axis": None}
    pd.DataFrame([*rows, lost]).to_csv(folder / "glomeruli.csv", index=False)
    images, masks = np.full((2 * n, 64, 64, 3), 200, np.uint8), np.zeros((2 * n, 64, 64), bool)
    masks[:, 16:48, 16:48] = True
    records = [{"glomerulus": row["glomerulus"], "cut": row["cut"]} for row in rows]
    write_crops(folder / "s.zarr.zip", "<b>&S", images, masks, records, {"size_px": 64})
    atlas.write_atlas(folder / "glomeruli.csv", [folder / "s.zarr.zip"], GRADES, {"<b>&S": "lab"}, folder / "a.html")
    page = (folder / "a.html").read_text(encoding="utf-8")
    figures = re.findall(r'<figure class="(.*?)" tabindex="0"(.*?)>\n<img', page)
    facts = [dict(re.findall(r'data-(\w+)="(.*?)"', rest)) | {"frame": frame} for frame, rest in figures]
    return page, [{key: unescape(value) for key, value in each.items()} for each in facts]


def test_glomeruli_stand_by_grade_and_axis(tmp_path):
    page, found = make(tmp_path, 5, odd=(3,))
    assert [each["glomerulus"][-4:] for each in found] == ["0000", "0002", "0004", "0006", "0008"] + [
        "0001", "0003", "0005", "0007", "0009"
    ]  # fmt: skip
    assert [each["frame"] for each in found] == ["", "", "cut", "", "", "", "unlike", "", "", ""]
    assert "label" not in found[0] and found[1]["place"] == "20, 7" and found[1]["diameter"] == "180 um"
    assert "10 glomeruli of 1 slide, " in page and "efficientnet | umap | silhouette" in page
    assert page.count("data:image/jpeg;base64,/9j/") == 10 and "http" not in page  # needs no network


def test_names_are_never_html(tmp_path):
    page, found = make(tmp_path, 2)
    assert "<b>" not in page and found[0]["slide"] == "<b>&S"


def test_of_very_many_some_are_shown_and_the_odd_ones_first(tmp_path, monkeypatch):
    monkeypatch.setattr(atlas, "PER_GRADE", 6)
    page, found = make(tmp_path, 20, odd=(3, 9))
    assert len(found) == 12 and "6 of them shown" in page
    numbers = [int(each["glomerulus"][-4:]) for each in found if each["grade"] == "1"]
    assert {1, 3, 9, 39} <= set(numbers) and numbers == sorted(numbers)


def test_a_cohort_without_glomeruli_has_a_page(tmp_path):
    columns = ["slide", "glomerulus", "label", "cut", *atlas._NUMBERS]
    pd.DataFrame(columns=columns).to_csv(tmp_path / "glomeruli.csv", index=False)
    atlas.write_atlas(tmp_path / "glomeruli.csv", [], GRADES, {}, tmp_path / "a.html")
    assert "0 glomeruli of 0 slides" in (tmp_path / "a.html").read_text()
