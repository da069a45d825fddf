"""What a rerun does: only what is new, and everything that is."""

import json
import os
import shutil
from pathlib import Path

import pytest
import runs
from runs import ROOT, planned, snakemake

NO_REFIT = (
    "train_segmenter", "train_second_look", "train_autoencoder", "reduce_embeddings", "cluster_glomeruli",
    "choose_segmenter",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A fresh copy of the project somewhere else, every file newer than all results."""
    copy = tmp_path_factory.mktemp("checkout") / "elsewhere"
    ignore = shutil.ignore_patterns(".git", ".venv", "results", ".snakemake", "__pycache__", ".pytest_cache")
    shutil.copytree(ROOT, copy, ignore=ignore)
    for path in copy.rglob("*"):
        os.utime(path)
    return copy


def edited(checkout, tmp_path, module):
    copy = tmp_path / "edited"
    shutil.copytree(checkout, copy)
    with (copy / "workflow_scripts" / "glomerulearn" / module).open("a") as file:
        file.write("\n\nEDITED = True\n")
    return copy


def test_fresh_demo(tmp_path):
    jobs = planned(tmp_path, {})
    assert jobs["make_demo_cohort"] == 1 and jobs["tile_slide"] == 10
    assert jobs["train_segmenter"] == jobs["train_second_look"] == 2
    assert jobs["read_outlines"] == jobs["label_glomeruli"] == 8
    assert jobs["infer_masks"] == 10 + 2 * 4 and jobs["embed_glomeruli"] == 40
    assert jobs["reduce_embeddings"] == 20 and jobs["cluster_glomeruli"] == 20 + 1 and jobs["assign_clusters"] == 10
    assert jobs["pack_fits"] == jobs["write_anndata"] == 1


@pytest.mark.parametrize(("second_look", "trained"), [({"epochs": 0}, 0), (None, 0), ({"epochs": 1}, 2)])
def test_without_epochs_there_is_no_second_look(tmp_path, second_look, trained):
    jobs = planned(tmp_path, {"segmentation": {"second_look": second_look}})
    assert jobs["train_segmenter"] == 2 and jobs.get("train_second_look", 0) == trained


def test_nothing_new_is_nothing_to_do(finished):
    assert planned(*finished) == {}


def test_a_fresh_checkout_reruns_nothing(finished, checkout):
    assert planned(*finished, root=checkout) == {}


def test_touched_or_moved_slides_rerun_nothing(finished, cohort, tmp_path):
    work, config = finished
    moved = tmp_path / "mount"
    shutil.copytree(cohort, moved)  # copies have new dates, too
    for path in moved.rglob("*.*"):
        os.utime(path)
    assert planned(work, config | {"slides": str(moved / "first.tsv")}) == {}


def test_reordered_sheet_reruns_no_more_than_summaries(finished, cohort):
    work, config = finished
    sheet = runs.write_sheet(cohort / "reordered.tsv", runs.read_sheet(cohort / "first.tsv")[::-1])
    assert planned(work, config | {"slides": str(sheet)}) == {}


def test_vanished_slide_ends_the_run_and_keeps_its_patches(finished, cohort, tmp_path):
    work, config = finished
    shutil.copytree(cohort, tmp_path / "cohort")
    (tmp_path / "cohort" / "slides" / "a01.svs").unlink()
    result = snakemake(work, config | {"slides": str(tmp_path / "cohort" / "first.tsv")}, "-n")
    assert result.returncode != 0 and "'a01' was used before and is missing now" in result.stdout


def test_moved_results_rerun_nothing(finished, tmp_path):
    work, config = finished
    shutil.copytree(work, tmp_path / "moved", symlinks=True)
    assert planned(tmp_path / "moved", config) == {}


def test_one_new_slide_costs_its_own_jobs(finished, cohort):
    work, config = finished
    jobs = planned(work, config | {"slides": str(cohort / "second.tsv")})
    assert not set(jobs) & set(NO_REFIT)
    assert jobs == {
        "tile_slide": 1, "infer_masks": 1, "crop_glomeruli": 1, "embed_glomeruli": 2, "measure_glomeruli": 1,
        "assign_clusters": 1, "collect_qc": 1, "collect_glomeruli": 1, "score_grades": 1, "write_atlas": 1,
        "grade_outlines": 1, "write_anndata": 1,
    }  # fmt: skip


def test_one_new_train_slide_trains_again(finished, cohort):
    work, config = finished
    rows = runs.read_sheet(cohort / "first.tsv")
    truth = {"slide": "late", "path": "slides/a05.svs", "annotation": "truth/a05.geojson", "split": "train"}
    sheet = runs.write_sheet(cohort / "trained.tsv", [*rows, truth])
    jobs = planned(work, config | {"slides": str(sheet)})
    assert jobs["tile_slide"] == 1 and jobs["train_segmenter"] == jobs["train_second_look"] == 2
    assert jobs["infer_masks"] == 8 + 12


RESCORED = {
    "label_glomeruli": 1, "collect_variants": 1, "order_grades": 1, "probe_embeddings": 1, "collect_glomeruli": 1,
    "score_grades": 1, "draw_variants": 11, "draw_agreement": 1, "write_atlas": 1,
    "grade_outlines": 1, "write_anndata": 1,
}  # fmt: skip


def test_edited_outline_of_a_test_slide_changes_scores_only(finished, cohort, tmp_path):
    work, config = finished
    copy = tmp_path / "cohort"
    shutil.copytree(cohort, copy)
    outline = copy / "outlines" / "a04.geojson"
    outline.write_text(outline.read_text().replace("Grade 1", "Grade 2", 1))
    jobs = planned(work, config | {"slides": str(copy / "first.tsv")})
    own = {"read_outlines": 1, "collect_qc": 1, "score_segmenter": 2, "compare_segmenters": 1, "draw_segmentations": 1}
    assert jobs == own | RESCORED


def test_a_label_sheet_changes_scores_only(finished, cohort, tmp_path):
    work, config = finished
    sheet = tmp_path / "labels.csv"
    sheet.write_text("slide,label,glomerulus\na04,Grade 3,a04-0001\n")
    assert planned(work, config | {"labels": str(sheet)}) == RESCORED
    sheet.write_text("slide,label,x_um\na04,Grade 3,5\n")
    result = snakemake(work, config | {"labels": str(sheet)}, "-n")
    assert result.returncode != 0 and "row 2: which glomerulus is it?" in result.stdout
    sheet.write_text("slide,label,glomerulus\na99,Grade 3,a04-0001\n")
    result = snakemake(work, config | {"labels": str(sheet)}, "-n")
    assert result.returncode != 0 and "'a99' is not in the slide sheet" in result.stdout


def test_removed_slide_reruns_summaries_only(finished, cohort):
    work, config = finished
    rows = [row for row in runs.read_sheet(cohort / "first.tsv") if row["slide"] != "b05"]
    sheet = runs.write_sheet(cohort / "fewer.tsv", rows)
    assert planned(work, config | {"slides": str(sheet)}) == {
        "collect_qc": 1, "collect_glomeruli": 1, "score_grades": 1, "write_atlas": 1, "grade_outlines": 1,
        "write_anndata": 1,
    }  # fmt: skip


def test_edited_module_reruns_its_dependants(finished, checkout, tmp_path):
    jobs = planned(*finished, root=edited(checkout, tmp_path, "figures.py"))
    assert set(jobs) == {
        "draw_learning_curves", "draw_segmentations", "draw_k_scores", "draw_agreement", "draw_variants"
    }  # fmt: skip
    shutil.rmtree(tmp_path / "edited")
    jobs = planned(*finished, root=edited(checkout, tmp_path, "export.py"))
    assert jobs["infer_masks"] == 8 + 11 and not set(jobs) & {"tile_slide", "train_segmenter"}


def test_swapped_settings_are_noticed(finished):
    work, config = finished
    swapped = {"isomap": {"components": 5, "neighbours": 30}, "tsne": {"components": 2, "neighbours": 15}}
    jobs = planned(work, config | {"reduction": swapped})
    assert jobs["reduce_embeddings"] == 2 * 2 and jobs["cluster_glomeruli"] == 2 * 2 + 1  # and the consensus
    assert not set(jobs) & {"train_segmenter", "tile_slide", "embed_glomeruli"}


def test_fitting_on_all_slides_refits_and_trains_no_segmenter(finished):
    work, config = finished
    jobs = planned(work, config | {"clustering": {"reference": "all"}})
    assert jobs["reduce_embeddings"] == 10 and jobs["cluster_glomeruli"] == 10 + 1 and jobs["train_autoencoder"] == 1
    assert jobs["embed_glomeruli"] == jobs["assign_clusters"] == 11  # the autoencoder is another
    assert not set(jobs) & {"train_segmenter", "tile_slide", "infer_masks", "crop_glomeruli"}


def test_outlines_for_other_programs_cost_their_writing_only(finished, tmp_path):
    work, config = finished
    changed = config | {"detection": config["detection"] | {"also_for": ["asap", "imagescope"]}}
    jobs = planned(work, changed)
    assert jobs == {"export_outlines": 2 * 11}


def test_cross_validation_trains_once_per_site_and_segmenter(finished):
    work, config = finished
    jobs = planned(work, config | {"cross_validate": {"group": "site", "folds": None}})
    # two sites with 4 outlined slides each; everything else is there already
    assert jobs == {
        "train_segmenter": 2 * 2, "train_second_look": 2 * 2, "infer_masks": 2 * 8, "score_segmenter": 2 * 2,
        "cross_validate": 1,
    }  # fmt: skip
    result = snakemake(work, config | {"cross_validate": {"group": "site", "folds": 3}}, "-n")
    assert result.returncode != 0 and "3 folds of 2 different values in column 'site'" in result.stdout


def test_another_segmenter_is_one_word(finished):
    work, config = finished
    segmentation = config["segmentation"] | {"segmenters": ["segnet", "unet", "deeplabv3plus"]}
    jobs = planned(work, config | {"segmentation": segmentation})
    assert jobs["train_segmenter"] == jobs["train_second_look"] == 1
    assert jobs["score_segmenter"] == 2 and jobs["compare_segmenters"] == 1


def test_one_segmenters_settings_leave_the_other_alone(finished):
    work, config = finished
    segmentation = config["segmentation"] | {"learning_rate": {"segnet": 0.001, "unet": 0.003}}
    jobs = planned(work, config | {"segmentation": segmentation})
    assert jobs["train_segmenter"] == jobs["train_second_look"] == 1


def test_another_second_look_keeps_the_first(finished):
    work, config = finished
    second = config["segmentation"] | {"second_look": {"epochs": 3}}
    jobs = planned(work, config | {"segmentation": second})
    assert jobs["train_second_look"] == 2 and jobs["infer_masks"] == 8 + 11 and "train_segmenter" not in jobs


def test_segmenters_from_elsewhere_need_no_training(finished, cohort, tmp_path):
    """One new slide without outlines, the networks of another cohort: outlines come out, and nothing is trained."""
    work, config = finished
    sheet = runs.write_sheet(cohort / "late.tsv", [{"slide": "late", "path": "slides/a05.svs", "split": "predict"}])
    elsewhere = {name: str(work / f"results/models/{name}/model.safetensors") for name in ("segnet", "unet")}
    changed = config | {"slides": str(sheet), "pretrained": elsewhere}
    result = snakemake(tmp_path, changed, "detection")
    assert result.returncode == 0, result.stdout[-3000:]
    assert "train_segmenter" not in result.stdout
    found = json.loads((tmp_path / "results" / "detections" / "best" / "late.geojson").read_text())
    assert len(found["features"]) >= 5
    # the address changes nothing, the content everything
    copy = tmp_path / "elsewhere" / "model.safetensors"
    copy.parent.mkdir()
    shutil.copyfile(elsewhere["unet"], copy)
    assert planned(tmp_path, changed | {"pretrained": elsewhere | {"unet": str(copy)}}, targets=["detection"]) == {}
    shutil.copyfile(elsewhere["segnet"], copy)
    jobs = planned(tmp_path, changed | {"pretrained": elsewhere | {"unet": str(copy)}}, targets=["detection"])
    assert jobs["take_segmenter"] == 1


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"slides": "gone.tsv"}, ["gone.tsv", "cannot be read"]),
        ({"tiling": {"mmp": 4}}, ["`tiling`", "`mmp`", "did you mean `mpp`"]),
    ],
)
def test_wrong_input_ends_before_any_job(tmp_path, change, parts):
    result = snakemake(tmp_path, change, "-n")
    assert result.returncode != 0
    for part in parts:
        assert part in result.stdout


def test_a_leak_in_the_sheet_ends_before_any_job(cohort, tmp_path):
    rows = runs.read_sheet(cohort / "first.tsv")
    for row in rows:
        row["patient"] = "P" if row["slide"] in ("a01", "a04") else row["patient"]
    sheet = runs.write_sheet(cohort / "leak.tsv", rows)
    result = snakemake(tmp_path, runs.demo_settings(slides=str(sheet)), "-n")
    assert result.returncode != 0 and "'P' stands in the splits train, test" in result.stdout


def test_profiles_hold_the_rerun_rules():
    import yaml

    for name in ("default", "slurm"):
        profile = yaml.safe_load(Path(ROOT, "profiles", name, "config.yaml").read_text())
        assert profile["rerun-triggers"] == ["mtime", "input", "params"] and profile["keep-going"]
