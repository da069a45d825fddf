"""Patch stores: windows are the slide's pixels, labels are the truth, damage is counted, nothing is half there."""

import numpy as np
import pytest
from conftest import OUTLINES, TILING

from glomerulearn.errors import InputError
from glomerulearn.leaks import check_leaks
from glomerulearn.outlines import SlideOutlines
from glomerulearn.patches import PatchStore
from glomerulearn.quality import QC_COLUMNS, SLIDE_COLUMNS, quality_row
from glomerulearn.sampling import usable
from glomerulearn.slide_outlines import read_slide_outlines
from glomerulearn.slides import open_slide
from glomerulearn.tiling import tile_slide


def test_window_anywhere_is_the_slide_resampled(small_slide, small_store):
    store = PatchStore(small_store)
    assert store.canvas == (600, 450) and store.scale == 2.0
    column, row = store.grid[len(store.grid) // 2] * store.patch_size
    window = store.window(int(column) + 30, int(row) - 20, 90, 70)
    with open_slide(small_slide[0]) as slide:
        expected = slide.read((column + 30) * 2, (row - 20) * 2, 90, 70, 2.0)
    stored = ~(window == 255).all(2)  # white where the grid has no patch
    assert stored.mean() > 0.5
    assert np.abs(window.astype(int) - expected)[stored].mean() < 1.0


def test_labels_are_the_truth(small_slide, small):
    store, truth = PatchStore(*small), small_slide[2]
    drawn, window = store.truth(), store.label_window(0, 0, *store.canvas)
    assert np.array_equal(drawn[window > 0], window[window > 0]) and store.untiled == 0
    assert np.array_equal(store.label_window(100, 50, 60, 40), window[50:90, 100:160])
    for grade in range(4):
        area = sum(polygon.area for polygon, own in zip(truth.polygons, truth.grades, strict=True) if own == grade)
        found = (drawn == 1 + store.labels.index(f"grade {grade}")).sum() * store.scale**2
        assert found == pytest.approx(area, rel=0.01)


def test_quality_row_accounts_for_every_grid_cell(small_slide, tmp_path):
    row = tile_slide("small", small_slide[0], None, TILING, tmp_path / "s.zarr.zip")
    assert tuple(row) == SLIDE_COLUMNS
    skipped = sum(int(part.split(": ")[1]) for part in row["skipped"].split("; ") if part)
    assert row["n_patches"] + skipped == row["n_grid"]
    assert row["mpp_origin"] == "metadata" and row["tissue_area_mm2"] > 0


def test_glass_has_a_reason(tmp_path):
    from glomerulearn.synthetic.slide_file import write_svs

    write_svs(tmp_path / "glass.svs", np.full((600, 600, 3), 243, np.uint8), 1.0)
    row = tile_slide("glass", tmp_path / "glass.svs", None, TILING, tmp_path / "g.zarr.zip")
    assert (row["status"], row["reason"], row["n_patches"]) == ("empty", "no tissue found", 0)
    assert not PatchStore(tmp_path / "g.zarr.zip").usable


@pytest.mark.parametrize("damage", ["truncated", "missing", "empty"])
def test_a_bad_slide_gives_a_row_not_a_crash(small_slide, tmp_path, damage):
    path = tmp_path / "bad.svs"
    whole = small_slide[0].read_bytes()
    if damage != "missing":
        path.write_bytes(whole[: len(whole) // 3] if damage == "truncated" else b"")
    row = tile_slide("bad", path, None, TILING, tmp_path / "b.zarr.zip")
    assert row["status"] == "failed" and "bad.svs" in row["reason"]
    assert not PatchStore(tmp_path / "b.zarr.zip").usable


def test_outlines_of_another_slide_are_refused(small_slide, tmp_path):
    import json

    content = json.loads(small_slide[1].read_text())
    for feature in content["features"]:
        for ring in feature["geometry"]["coordinates"]:
            for point in ring:
                point[0] += 90_000
    shifted = tmp_path / "shifted.geojson"
    shifted.write_text(json.dumps(content))
    facts = read_slide_outlines("small", small_slide[0], shifted, None, OUTLINES, tmp_path / "s.geojson")
    assert facts["outlines_status"] == "failed" and "outside the slide" in facts["outlines_reason"]
    read = SlideOutlines(tmp_path / "s.geojson")
    assert not read.usable and read.outlines == []
    # its pixels are as good as they were
    row = quality_row(dict.fromkeys(SLIDE_COLUMNS, "") | {"slide": "small", "status": "ok"}, facts)
    assert row["status"] == "unlabelled" and "outside the slide" in row["reason"]


def test_a_slide_that_cannot_be_used_is_named_with_its_reason(
    small_slide, small_truth, small_store, small, tmp_path, caplog
):
    """Training goes on with the others; where there are none, it ends with an error that says what to do."""
    tile_slide("gone", tmp_path / "gone.svs", None, TILING, tmp_path / "gone.zarr.zip")
    (tmp_path / "broken.geojson").write_text("{")
    read_slide_outlines("small", small_slide[0], tmp_path / "broken.geojson", None, OUTLINES, tmp_path / "b.geojson")
    unusable = [(tmp_path / "gone.zarr.zip", small_truth), (small_store, tmp_path / "b.geojson")]
    assert usable([small, *unusable], "train") == [small]
    assert "train slide gone is left out" in caplog.text and "gone.svs" in caplog.text
    assert "train slide small is left out" in caplog.text and "broken.geojson" in caplog.text
    with pytest.raises(InputError, match="no usable slide with outlines in split `val`"):
        usable(unusable, "val")


def test_quality_row_tells_what_the_outlines_were(small_truth):
    facts = SlideOutlines(small_truth).facts
    row = quality_row(dict.fromkeys(SLIDE_COLUMNS, "") | {"slide": "small", "status": "ok"}, facts)
    assert tuple(row) == QC_COLUMNS and row["n_outlines"] == 6 and row["annotated"]
    assert (
        row["status"] == "ok" and row["annotation_format"] == "QuPath GeoJSON" and "Grade 0: " in row["outline_classes"]
    )
    without = quality_row({"slide": "small", "status": "ok"}, None)
    assert not without["annotated"] and without["n_outlines"] is None


def test_an_outline_where_nothing_was_tiled_counts(small_slide, tmp_path):
    """Its glomerulus is in the truth that scores are of, not in the windows that training sees."""
    everything = tmp_path / "e.zarr.zip"
    tile_slide("small", small_slide[0], None, TILING | {"min_tissue": 0.9}, everything)
    outlines = tmp_path / "o.geojson"
    read_slide_outlines("small", *small_slide[:2], None, OUTLINES, outlines)
    store = PatchStore(everything, outlines)
    assert 0 < store.untiled < 6
    assert (store.truth() > 0).sum() > (store.label_window(0, 0, *store.canvas) > 0).sum()


def test_same_file_under_two_names_is_a_leak(small_slide, small_store, tmp_path):
    other = tmp_path / "other.zarr.zip"
    tile_slide("other", small_slide[0], None, TILING, other)
    check_leaks([small_store, other], {"small": ("train", ""), "other": ("train", "")}, tmp_path / "leaks.tsv")
    assert (tmp_path / "leaks.tsv").read_text().count("train") == 2
    with pytest.raises(InputError, match="same file .*train, test.*small, other"):
        check_leaks([small_store, other], {"small": ("train", ""), "other": ("test", "")}, tmp_path / "l.tsv")


def test_same_patient_on_two_files_is_a_leak(small_store, tmp_path):
    from glomerulearn import synthetic

    synthetic.make_slide(tmp_path / "other.svs", synthetic.Recipe(400, 300, glomeruli=1), seed=1)
    other = tmp_path / "other.zarr.zip"
    tile_slide("other", tmp_path / "other.svs", None, TILING, other)
    check_leaks([small_store, other], {"small": ("val", "P"), "other": ("test", "Q")}, tmp_path / "l.tsv")
    with pytest.raises(InputError, match=r"same patient \(P\).*val, test"):
        check_leaks([small_store, other], {"small": ("val", "P"), "other": ("test", "P")}, tmp_path / "l.tsv")
