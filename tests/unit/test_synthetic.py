"""The synthetic cohort: files that OpenSlide reads, and a truth that is true of the pixels."""

import csv
import json
from dataclasses import replace

import numpy as np
import openslide
import pytest
import shapely
from shapely.geometry import shape

from glomerulearn import synthetic

RECIPE = synthetic.Recipe(800, 600, mpp=1.0, site="lab_a", glomeruli=4, grade_shares=(1, 1, 1, 1), cut_share=0)


def pixels(path):
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def density(path):
    """Mean optical density over the channels."""
    return -np.log10((pixels(path).astype(np.float32) + 1) / 250).mean(axis=2)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "slide.svs"
    return path, synthetic.make_slide(path, RECIPE, seed=3)


def test_openslide_reads_it_as_an_aperio_pyramid(slide):
    path, _ = slide
    with openslide.OpenSlide(path) as opened:
        assert opened.properties["openslide.vendor"] == "aperio"
        assert float(opened.properties["openslide.mpp-x"]) == RECIPE.mpp
        assert opened.level_dimensions == ((800, 600), (200, 150), (50, 37))
    assert [file.name for file in path.parent.iterdir()] == ["slide.svs"]


def test_truth_holds_the_wanted_grades(slide):
    _, truth = slide
    assert sorted(truth.grades) == [0, 1, 2, 3]
    assert len(truth.polygons) == 4


def test_polygons_are_the_mask(slide):
    _, truth = slide
    y, x = np.mgrid[: RECIPE.height_px, : RECIPE.width_px] + 0.5
    drawn = np.zeros(truth.mask.shape, np.uint8)
    for polygon, grade in zip(truth.polygons, truth.grades, strict=True):
        assert polygon.is_valid and len(polygon.exterior.coords) > 40
        drawn[shapely.contains_xy(polygon, x, y)] = 1 + grade
    assert np.array_equal(drawn, truth.mask)


def test_capsule_is_painted_on_the_outline(slide):
    """The dark line of Bowman's capsule lies within 1 px (and its thickness) of each polygon."""
    path, truth = slide
    dark = density(path)
    y, x = np.mgrid[: RECIPE.height_px, : RECIPE.width_px] + 0.5
    for polygon, grade in zip(truth.polygons, truth.grades, strict=True):
        if grade == 3:  # scarred inside and outside: no contrast
            continue
        depths = np.arange(-3, 9)
        rings = [
            shapely.contains_xy(polygon.buffer(-depth + 0.5).difference(polygon.buffer(-depth - 0.5)), x, y)
            for depth in depths
        ]
        profile = [dark[ring].mean() for ring in rings]
        assert 0 <= depths[int(np.argmax(profile))] <= 3


def test_areas_fit_diameters_in_um(tmp_path):
    for mpp in (1.0, 1.3):
        truth = synthetic.make_slide(tmp_path / "slide.svs", replace(RECIPE, mpp=mpp), seed=5)
        for polygon, grade in zip(truth.polygons, truth.grades, strict=True):
            diameter_um = 2 * np.sqrt(polygon.area / np.pi) * mpp
            low, high = (90, 142) if grade == 3 else (130, 222)
            assert low < diameter_um < high
            left, top, right, bottom = polygon.bounds
            assert left >= 0 and top >= 0 and right <= RECIPE.width_px and bottom <= RECIPE.height_px


def test_cut_glomeruli_end_where_the_tissue_ends(tmp_path):
    path = tmp_path / "slide.svs"
    truth = synthetic.make_slide(path, replace(RECIPE, glomeruli=8, cut_share=1.0), seed=1)
    roundness = [4 * np.pi * polygon.area / polygon.length**2 for polygon in truth.polygons]
    assert min(roundness) < 0.9  # some are cut
    # a disc of glass that a polygon held would be brighter over 12 px than any Bowman's space
    tissue = density(path) > 0.05
    for polygon in truth.polygons:
        rim = polygon.difference(polygon.buffer(-3))
        y, x = np.mgrid[: tissue.shape[0], : tissue.shape[1]] + 0.5
        assert tissue[shapely.contains_xy(rim, x, y)].mean() > 0.8


def test_seed_decides_every_byte(slide, tmp_path):
    path, truth = slide
    again = synthetic.make_slide(tmp_path / "again.svs", RECIPE, seed=3)
    other = synthetic.make_slide(tmp_path / "other.svs", RECIPE, seed=4)
    assert (tmp_path / "again.svs").read_bytes() == path.read_bytes()
    assert again.polygons == truth.polygons
    assert other.polygons != truth.polygons


def test_laboratories_differ_in_colour(slide, tmp_path):
    synthetic.make_slide(tmp_path / "b.svs", replace(RECIPE, site="lab_b"), seed=3)
    colours = []
    for path in (slide[0], tmp_path / "b.svs"):
        image, tissue = pixels(path), density(path) > 0.1
        colours.append(image[tissue].mean(axis=0))
    assert np.linalg.norm(colours[0] - colours[1]) > 15


def test_medulla_has_tissue_but_no_glomeruli(tmp_path):
    truth = synthetic.make_slide(tmp_path / "slide.svs", replace(RECIPE, glomeruli=0), seed=0)
    assert truth.polygons == [] and truth.grades == [] and not truth.mask.any()
    assert (density(tmp_path / "slide.svs") > 0.1).mean() > 0.3


@pytest.mark.parametrize(
    "wrong",
    [{"site": "lab_c"}, {"mpp": 0}, {"width_px": 20}, {"grade_shares": (0, 0, 0, 0)}, {"fibrosis": 2}],
)
def test_recipes_that_cannot_be_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="lab_c|sides|shares|fibrosis"):
        synthetic.make_slide(tmp_path / "slide.svs", replace(RECIPE, **wrong))


@pytest.mark.parametrize("jobs", [1, 2])
def test_cohort_is_complete(tmp_path, monkeypatch, jobs):
    # the same ten patients, on small slides
    small = [
        replace(
            patient,
            recipe=replace(
                patient.recipe,
                width_px=500,
                height_px=400,
                cores=1,
                glomeruli=min(3, patient.recipe.glomeruli),
            ),
        )
        for patient in synthetic.COHORT
    ]
    monkeypatch.setattr(synthetic, "COHORT", small)
    sheet = synthetic.make_cohort(tmp_path / "cohort", seed=1, jobs=jobs)
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0]) == [
        "slide",
        "path",
        "annotation",
        "split",
        "mpp",
        "patient",
        "site",
        "stain",
        "group",
    ]
    splits = ["predict", "test", "train", "train", "val"]
    for site in ("lab_a", "lab_b"):
        assert sorted(row["split"] for row in rows if row["site"] == site) == splits
    assert len({row["patient"] for row in rows}) == len(rows) == 10
    empty = []
    for row in rows:
        assert (sheet.parent / row["path"]).is_file() and row["mpp"] == ""
        assert bool(row["annotation"]) == (row["split"] != "predict")
        truth = json.loads((sheet.parent / "truth" / f"{row['slide']}.geojson").read_text())
        if row["annotation"]:
            assert json.loads((sheet.parent / row["annotation"]).read_text()) == truth
        if not truth["features"]:
            empty.append((row["site"], row["split"]))
        for feature in truth["features"]:
            assert shape(feature["geometry"]).is_valid
            assert feature["properties"]["objectType"] == "annotation"
            assert feature["properties"]["classification"]["name"] in {f"Grade {grade}" for grade in range(4)}
    assert empty == [("lab_b", "predict")]


def test_both_laboratories_hold_all_grades():
    for site in ("lab_a", "lab_b"):
        recipes = [p.recipe for p in synthetic.COHORT if p.recipe.site == site and p.split == "train"]
        assert all(min(recipe.grade_shares) * recipe.glomeruli > 1 for recipe in recipes)
