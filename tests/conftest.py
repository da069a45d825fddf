"""Slides and runs that several tests share."""

from pathlib import Path

import pytest
import runs

from glomerulearn import synthetic
from glomerulearn.slide_outlines import read_slide_outlines
from glomerulearn.synthetic import write_outlines
from glomerulearn.tiling import tile_slide

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"

TILING = {"mpp": 2.0, "patch_size_px": 128, "min_tissue": 0.05, "max_damaged": 0.1, "codec": "zstd"}
OUTLINES = {"classes": {f"Grade {grade}": f"grade {grade}" for grade in range(4)}, "label_images": "class"}


# files whose tests ask about the finished cohort, which takes minutes to make
COHORT_FILES = ("tests/workflow/test_reruns.py", "tests/integration/test_cohort.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Where tests run side by side, those of a file share a process, and those of the finished cohort do."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return "cohort" if file in COHORT_FILES else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def shared():
    """The folder of real test data, which is no part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"no real test data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def small_slide(tmp_path_factory):
    """A synthetic slide of 1200 x 900 px at 1 um/px with 6 glomeruli: paths of slide and outlines, and the truth."""
    folder = tmp_path_factory.mktemp("small")
    recipe = synthetic.Recipe(1200, 900, mpp=1.0, glomeruli=6, grade_shares=(1, 1, 1, 1), cut_share=0)
    truth = synthetic.make_slide(folder / "small.svs", recipe, seed=7)
    write_outlines(folder / "small.geojson", list(zip(truth.polygons, truth.grades, strict=True)), "small")
    return folder / "small.svs", folder / "small.geojson", truth


@pytest.fixture(scope="session")
def small_store(small_slide, tmp_path_factory):
    """The patch store of the small slide at 2 um/px."""
    target = tmp_path_factory.mktemp("store") / "small.zarr.zip"
    row = tile_slide("small", small_slide[0], None, TILING, target)
    assert row["status"] == "ok"
    return target


@pytest.fixture(scope="session")
def small_truth(small_slide, tmp_path_factory):
    """The outlines of the small slide, as the workflow keeps them."""
    target = tmp_path_factory.mktemp("truth") / "small.geojson"
    assert read_slide_outlines("small", *small_slide[:2], None, OUTLINES, target)["outlines_status"] == "ok"
    return target


@pytest.fixture(scope="session")
def small(small_store, small_truth):
    """The small slide as training takes it: patch store and outlines."""
    return small_store, small_truth


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """The demo cohort as a user's own slides, with one file cut short and one that is not there."""
    folder = tmp_path_factory.mktemp("cohort")
    sheet = synthetic.make_cohort(folder, seed=0, jobs=2)
    whole = (folder / "slides" / "a05.svs").read_bytes()
    (folder / "slides" / "broken.svs").write_bytes(whole[: len(whole) // 3])
    bad = [{"slide": name, "path": f"slides/{name}.svs", "split": "predict"} for name in ("broken", "gone")]
    # a05 arrives later
    runs.write_sheet(folder / "first.tsv", [row for row in runs.read_sheet(sheet) if row["slide"] != "a05"] + bad)
    runs.write_sheet(folder / "second.tsv", runs.read_sheet(sheet) + bad)
    return folder


@pytest.fixture(scope="session")
def finished(cohort, tmp_path_factory):
    """The whole workflow, run on the cohort: folder and configuration."""
    work = tmp_path_factory.mktemp("work")
    config = runs.demo_settings(slides=str(cohort / "first.tsv"))
    # one that is trained here, and one that comes with its weights: the others differ in nothing but their name
    config["embedding"]["extractors"] = ["autoencoder", "efficientnet"]
    config["segmentation"]["epochs"] = 8  # enough to find all glomeruli
    result = runs.snakemake(work, config)
    assert result.returncode == 0, result.stdout[-6000:]
    assert "Done. Open in" in result.stdout
    assert "Slide broken is failed: " in result.stdout and "Slide gone is failed: " in result.stdout
    return work, config
