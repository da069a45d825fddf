"""Sheets: what is wrong is named by file, row and column; splits cannot leak; files are known by content."""

import pytest
from conftest import ROOT

from glomerulearn.errors import InputError
from glomerulearn.sheets import check_names, check_splits, fingerprint, read_crops, read_slides

SLIDES, CROPS = ROOT / "schemas" / "slides.schema.yaml", ROOT / "schemas" / "crops.schema.yaml"


def sheet(folder, text, name="slides.tsv"):
    (folder / "o.geojson").write_text("[]")
    path = folder / name
    path.write_text(text)
    return path


def test_defaults_and_relative_paths(tmp_path):
    rows = read_slides(sheet(tmp_path, "slide\tpath\nA\tsub/a.svs\nB\t/data/b.svs\n"), SLIDES)
    assert rows["A"] == {
        "slide": "A", "path": str(tmp_path / "sub/a.svs"), "annotation": "", "split": "predict", "mpp": None,
        "patient": "", "site": "", "stain": "", "group": "",
    }  # fmt: skip
    assert rows["B"]["path"] == "/data/b.svs"


def test_addresses_on_s3_stay_as_they_are(tmp_path):
    row = "A\ts3://bucket/a.svs\ts3://bucket/a.geojson\ttrain\n"
    rows = read_slides(sheet(tmp_path, "slide\tpath\tannotation\tsplit\n" + row), SLIDES)
    assert (rows["A"]["path"], rows["A"]["annotation"]) == ("s3://bucket/a.svs", "s3://bucket/a.geojson")


def test_comma_separated_with_byte_order_mark(tmp_path):
    path = sheet(tmp_path, "\ufeffslide,path,mpp,annotation,split\nA,a.svs,0.25,o.geojson,train\n", "slides.csv")
    assert read_slides(path, SLIDES)["A"]["mpp"] == 0.25


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("slide\tpath\tspilt\nA\ta.svs\ttrain\n", ["row 1", "spilt", "split"]),
        ("slide\nA\n", ["row 1", "path"]),
        ("slide\tpath\tsplit\nA\ta.svs\ttrian\n", ["row 2", "column split", "trian", "train, val, test or predict"]),
        ("slide\tpath\tmpp\nA\ta.svs\t0,25\n", ["row 2", "column mpp", "0,25", "micrometres"]),
        ("slide\tpath\tmpp\nA\ta.svs\t-1\n", ["row 2", "column mpp"]),
        ("slide\tpath\n../x\ta.svs\n", ["row 2", "column slide", "../x"]),
        ("slide\tpath\nall\ta.svs\n", ["row 2", "column slide", "not `all`"]),
        ("slide\tpath\tmpp\n\nA\ta.svs\tnan\n", ["row 3", "column mpp", "nan"]),
        ("slide\tpath\nA\ta.svs\nA\tb.svs\n", ["row 3", "two rows"]),
        ("slide\tpath\nA\t\n", ["row 2", "column path"]),
        ("slide\tpath\nA\n", ["row 2", "cells"]),
        ("slide\tpath\n", ["no rows"]),
        ("slide\tpath\tsplit\nA\ta.svs\ttest\n", ["row 2", "annotation", "predict"]),
        ("slide\tpath\tannotation\nA\ta.svs\tgone.geojson\n", ["row 2", "annotation", "gone.geojson"]),
    ],
)
def test_errors_name_row_column_and_fix(tmp_path, text, parts):
    with pytest.raises(InputError) as error:
        read_slides(sheet(tmp_path, text), SLIDES)
    for part in ["slides.tsv", *parts]:
        assert part in str(error.value)


@pytest.mark.parametrize("column", ["path", "patient"])
def test_one_file_or_patient_in_two_splits_is_a_leak(tmp_path, column):
    second = "a.svs" if column == "path" else "b.svs"
    text = (
        "slide\tpath\tannotation\tsplit\tpatient\n"
        f"A\ta.svs\to.geojson\ttrain\tP1\nB\t{second}\to.geojson\ttest\t{'P2' if column == 'path' else 'P1'}\n"
    )
    with pytest.raises(InputError, match=f"column {column}.*train, test"):
        read_slides(sheet(tmp_path, text), SLIDES)


def test_patient_may_be_predicted_too(tmp_path):
    text = "slide\tpath\tannotation\tsplit\tpatient\nA\ta.svs\to.geojson\ttrain\tP1\nB\tb.svs\t\tpredict\tP1\n"
    assert len(read_slides(sheet(tmp_path, text), SLIDES)) == 2


def test_crops_are_grouped_by_slide_and_must_exist(tmp_path):
    (tmp_path / "1.png").touch()
    text = "glomerulus\timage\tslide\tsite\tlabel\ng1\t1.png\tS\tX\tnormal\n"
    rows = read_crops(sheet(tmp_path, text), CROPS)
    assert rows["S"][0]["image"] == str(tmp_path / "1.png") and rows["S"][0]["mask"] == ""
    with pytest.raises(InputError, match=r"row 3, column image: no such file .*2\.png"):
        read_crops(sheet(tmp_path, text + "g2\t2.png\tS\tX\tnormal\n"), CROPS)
    with pytest.raises(InputError, match="column site: slide 'S' has two sites, 'X' and 'Y'"):
        read_crops(sheet(tmp_path, text + "g2\t1.png\tS\tY\tnormal\n"), CROPS)
    with pytest.raises(InputError, match="slide sheet and in the crop sheet"):
        check_names({"S": {}}, rows)


def test_fingerprint_follows_content_not_date_or_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    first, copy = tmp_path / "a.svs", tmp_path / "sub" / "a.svs"
    first.write_bytes(b"x" * 200_000)
    copy.write_bytes(b"x" * 200_000)
    assert fingerprint(first) == fingerprint(copy)
    copy.write_bytes(b"x" * 199_999 + b"y")
    assert fingerprint(first) != fingerprint(copy)
    assert fingerprint(tmp_path / "gone.svs") == "missing"
    # one letter in the middle of an outline file
    copy.write_bytes(b"x" * 100_000 + b"y" + b"x" * 99_999)
    assert fingerprint(first) != fingerprint(copy) and fingerprint(first, whole=False) == fingerprint(copy, whole=False)


def test_slides_to_train_on_and_to_choose_by_are_needed(tmp_path):
    rows = read_slides(sheet(tmp_path, "slide\tpath\tannotation\tsplit\nA\ta.svs\to.geojson\ttrain\n"), SLIDES)
    with pytest.raises(InputError, match=r"slides\.tsv, column split: no slide is 'val'"):
        check_splits(rows, "slides.tsv", ("train", "val"))
    check_splits(rows, "slides.tsv", ())  # segmenters that are all trained elsewhere
