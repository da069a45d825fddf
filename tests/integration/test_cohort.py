"""The whole workflow on a cohort with known truth: what is in the files, not that they are there."""

import json
import shutil
import zipfile

import anndata
import numpy as np
import pandas as pd
import pytest
import runs
from PIL import Image
from shapely.geometry import box, shape
from sklearn.metrics import adjusted_rand_score

from glomerulearn.atlas import PER_GRADE
from glomerulearn.crops import CropStore
from glomerulearn.masks import MaskStore
from glomerulearn.patches import PatchStore
from glomerulearn.scoring import match_glomeruli

SEGMENTER_COLUMNS = [
    "segmenter", "slide", "split", "loss", "accuracy", "mean_iou", "dice", "precision", "recall", "f1_glomerulus",
    "n_glomeruli",
]  # fmt: skip
EXTRACTORS = ("autoencoder_", "efficientnet_", "consensus_")
SLIDES = ["a01", "a02", "a03", "a04", "b01", "b02", "b03", "b04", "b05", "broken", "gone"]


@pytest.fixture(scope="module")
def results(finished):
    return finished[0] / "results"


def outlines(path):
    return [shape(feature["geometry"]) for feature in json.loads(path.read_text())["features"]]


def test_bad_slides_are_named_and_stop_nothing(results):
    table = pd.read_csv(results / "qc" / "slides.tsv", sep="\t").set_index("slide")
    assert list(table.index) == SLIDES
    assert table.loc["broken", "status"] == table.loc["gone", "status"] == "failed"
    assert "broken.svs" in table.loc["broken", "reason"] and "no such slide" in table.loc["gone", "reason"]
    assert (table.drop(["broken", "gone"])["status"] == "ok").all()
    for slide in ("broken", "gone"):
        assert outlines(results / "detections" / "best" / f"{slide}.geojson") == []


def test_no_leak(results):
    table = pd.read_csv(results / "qc" / "leaks.tsv", sep="\t")
    assert len(table) == 8 and table["file"].nunique() == 8 and table["patient"].nunique() == 8


def test_both_segmenters_are_good_on_unseen_slides(results):
    table = pd.read_csv(results / "scores" / "segmenters.tsv", sep="\t")
    assert list(table.columns[: len(SEGMENTER_COLUMNS)]) == SEGMENTER_COLUMNS
    assert set(table["slide"]) == {"a03", "a04", "b03", "b04", "all"} and set(table["split"]) == {"val", "test"}
    test = table[(table["slide"] == "all") & (table["split"] == "test")].set_index("segmenter")
    assert test.loc["unet", "dice"] > 0.75 and test.loc["segnet", "dice"] > 0.6
    assert test.loc["unet", "f1_glomerulus"] > 0.75
    for segmenter in ("segnet", "unet"):
        epochs = pd.read_csv(results / "models" / segmenter / "epochs.csv")
        assert epochs["train_loss"].iloc[-1] < epochs["train_loss"].iloc[0]
    best = json.loads((results / "models" / "best" / "model.json").read_text())
    val = table[(table["slide"] == "all") & (table["split"] == "val")].set_index("segmenter")
    assert best["segmenter"] == val["mean_iou"].idxmax() and best["train"] == ["a01", "a02", "b01", "b02"]


def test_scores_are_what_the_files_say(results, cohort):
    """Dice and F1 of a test slide, recomputed from mask, labels and GeoJSON."""
    table = pd.read_csv(results / "scores" / "segmenters.tsv", sep="\t")
    row = table[(table["segmenter"] == "unet") & (table["slide"] == "a04")].iloc[0]
    truth = PatchStore(results / "patches" / "a04.zarr.zip", results / "outlines" / "a04.geojson").truth() > 0
    found = MaskStore(results / "masks" / "unet" / "a04.zarr.zip").instances > 0
    assert row["dice"] == pytest.approx(2 * (truth & found).sum() / (truth.sum() + found.sum()))
    detected, drawn = (
        outlines(results / "detections" / "unet" / "a04.geojson"),
        outlines(cohort / "outlines" / "a04.geojson"),
    )
    matched = len(match_glomeruli(detected, drawn))
    assert row["f1_glomerulus"] == pytest.approx(2 * matched / (len(detected) + len(drawn)))
    assert row["n_glomeruli"] == len(drawn) == 22


def test_outlines_lie_on_the_slide_in_level0_pixels(results, cohort):
    """Centroids of matched glomeruli do not drift from the truth, in either laboratory (mpp 1.0 and 1.3)."""
    for slide in ("a04", "b04"):
        detected, drawn = (
            outlines(results / "detections" / "best" / f"{slide}.geojson"),
            outlines(cohort / "truth" / f"{slide}.geojson"),
        )
        facts = PatchStore(results / "patches" / f"{slide}.zarr.zip").attributes
        frame = box(-1, -1, facts["width_px"] + 1, facts["height_px"] + 1)
        assert all(frame.contains(polygon) for polygon in detected)
        pairs = match_glomeruli(detected, drawn)
        offsets = [
            (detected[i].centroid.x - drawn[j].centroid.x, detected[i].centroid.y - drawn[j].centroid.y)
            for i, j, _ in pairs
        ]
        assert len(pairs) > 10 and np.abs(np.mean(offsets, axis=0)).max() < 4.0 / facts["mpp_level0"]
        table = pd.read_csv(results / "detections" / "best" / f"{slide}.csv")
        areas = [polygon.area * facts["mpp_level0"] ** 2 for polygon in detected]
        assert np.allclose(table["area_um2"], areas, rtol=0.01)


def test_a_slide_without_glomeruli_goes_through(results):
    assert len(outlines(results / "detections" / "best" / "b05.geojson")) <= 2
    assert len(CropStore(results / "crops" / "b05.zarr.zip")) <= 2
    assert (results / "assignments" / "b05.csv").exists()


def test_every_glomerulus_has_a_crop_and_every_variant(results):
    table = pd.read_csv(results / "glomeruli.csv")
    detections = [pd.read_csv(results / "detections" / "best" / f"{slide}.csv") for slide in SLIDES]
    assert len(table) == sum(map(len, detections)) > 120 and table["glomerulus"].is_unique
    assert {"slide", "glomerulus", "centroid_x_px", "centroid_y_px", "area_um2", "label", "cut"} <= set(table.columns)
    variants = [column for column in table.columns if column.startswith(EXTRACTORS)]
    assert len(variants) == 40 + 4 and table[variants].notna().all(axis=None)
    assert table["random_weights"].isna().all()
    assert len(CropStore(results / "crops" / "a01.zarr.zip")) == (table["slide"] == "a01").sum()


def test_variants_are_scored_as_stated(results):
    table = pd.read_csv(results / "scores" / "variants.tsv", sep="\t")
    wanted = {
        "extractor",
        "reducer",
        "method",
        "k",
        "silhouette",
        "ari_label",
        "nmi_label",
        "ari_site",
        "stability",
        "n",
    }
    assert wanted <= set(table.columns) and len(table) == 40 + 4
    assert table.drop(columns=["weights", "chosen"]).notna().all(axis=None) and table["k"].between(2, 10).all()
    weights = table.groupby("extractor")["weights"].unique().map(list).to_dict()
    own = {"autoencoder": ["trained on the cohort"], "efficientnet": ["ImageNet"]}
    assert weights.pop("consensus") in own.values() and weights == own
    # agreement recomputed from the table that users get
    glomeruli = pd.read_csv(results / "glomeruli.csv", keep_default_na=False)
    part = glomeruli[~glomeruli["slide"].isin(["b05", "broken", "gone"]) & (glomeruli["cut"].astype(str) == "False")]
    row = table.set_index(["extractor", "reducer", "method"]).loc["autoencoder", "pca", "silhouette"]
    clusters = part["autoencoder_pca_silhouette"].astype(float)
    known = part["label"] != ""
    assert row["n"] == len(part)
    assert row["ari_label"] == pytest.approx(adjusted_rand_score(part["label"][known], clusters[known]))
    assert row["ari_site"] == pytest.approx(adjusted_rand_score(part["slide"].str[0], clusters))


def test_grades_are_the_chosen_variants_clusters(results):
    variants = pd.read_csv(results / "scores" / "variants.tsv", sep="\t", keep_default_na=False)
    chosen = variants[variants["chosen"].str.contains("without labels")]
    assert len(chosen) == 1 and (chosen["weights"] != "random").all()
    table = pd.read_csv(results / "glomeruli.csv")
    column = "_".join(chosen.iloc[0][["extractor", "reducer", "method"]])
    assert table.groupby(column)["grade"].nunique().eq(1).all() and table["grade"].notna().all()
    whole = table[~table["cut"]]
    axis = whole.groupby("grade")["sclerosis_axis"].mean()
    assert axis.is_monotonic_increasing and len(axis) == chosen.iloc[0]["k"]
    scores = pd.read_csv(results / "scores" / "grading.tsv", sep="\t")
    known = whole[whole["label"].notna()]
    everything = scores[scores["of"] == "all"].iloc[0]
    assert everything["n"] == len(known)
    assert everything["ari"] == pytest.approx(adjusted_rand_score(known["label"], known["grade"]))
    assert set(scores[scores["of"] == "site"]["name"]) == {"lab_a", "lab_b"}
    per_slide = pd.read_csv(results / "grades_per_slide.tsv", sep="\t").set_index("group")
    assert per_slide.loc["a01", "n"] == (whole["slide"] == "a01").sum()


def test_atlas_shows_every_graded_glomerulus(results):
    table = pd.read_csv(results / "glomeruli.csv")
    page = (results / "atlas.html").read_text(encoding="utf-8")
    shown = table["grade"].value_counts().clip(upper=PER_GRADE)
    assert page.count("<figure ") == page.count("data:image/jpeg") == shown.sum() > 100
    assert all(page.count(f'data-grade="{grade}"') == count for grade, count in shown.items())


def test_outlines_come_back_with_their_grades(results):
    table = pd.read_csv(results / "glomeruli.csv").set_index("glomerulus")
    for slide in ("a01", "a04", "gone"):
        found = json.loads((results / "graded" / f"{slide}.geojson").read_text())["features"]
        plain = json.loads((results / "detections" / "best" / f"{slide}.geojson").read_text())["features"]
        assert [each["geometry"] for each in found] == [each["geometry"] for each in plain]
        for each in found:
            row = table.loc[each["properties"]["name"]]
            assert each["properties"]["classification"]["name"] == f"Grade {row['grade']}"
            assert each["properties"]["measurements"]["Sclerosis axis"] == row["sclerosis_axis"]


def test_anndata_holds_the_table_and_every_vector(results, cohort):
    table, data = pd.read_csv(results / "glomeruli.csv"), anndata.read_h5ad(results / "glomeruli.h5ad")
    assert data.obs_names.tolist() == table["glomerulus"].tolist()
    assert np.allclose(data[:, "contrast"].X[:, 0], table["contrast"])
    assert data.obs["grade"].astype(int).tolist() == table["grade"].tolist()
    assert set(data.obs["site"]) == {"lab_a", "lab_b"}
    splits = pd.read_csv(cohort / "first.tsv", sep="\t").set_index("slide")["split"]
    assert data.obs["split"].tolist() == splits[table["slide"]].tolist()
    assert set(data.obs["split"]) >= {"train", "val", "test"}
    own = np.load(results / "embeddings" / "autoencoder" / "a02.npz")
    assert np.array_equal(data[own["glomerulus"].tolist()].obsm["X_autoencoder"], own["vectors"])
    assert data.obsm["X_efficientnet_umap"].shape[0] == len(table) and len(data.obsm) == 2 + 2 * 4 + 1


def test_figures_hold_something(results):
    figures = sorted((results / "figures").rglob("*.png"))
    assert len(figures) == 44 + 4
    for path in figures:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[0] > 300 and 0.005 < (pixels < 200).mean() < 0.9, path.name


def test_report_holds_the_tables_and_figures(finished, tmp_path):
    work, config = finished
    target = tmp_path / "report.zip"
    result = runs.snakemake(work, config, "--report", str(target))
    assert result.returncode == 0, result.stdout[-3000:]
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
    assert sum(name.endswith(".png") for name in names) >= 48
    assert any("report.html" in name for name in names)


def test_later_slide_changes_no_label(finished, cohort, tmp_path):
    """A new predict slide is assigned with the fitted models: everything known before stays, byte for byte."""
    work, config = finished
    work = shutil.copytree(work, tmp_path / "work")  # other tests ask what is left to do in the first folder
    before = {path.name: path.read_bytes() for path in (work / "results" / "assignments").iterdir()}
    models = {path: path.read_bytes() for path in (work / "results" / "models").rglob("*.safetensors")}
    result = runs.snakemake(work, config | {"slides": str(cohort / "second.tsv")})
    assert result.returncode == 0, result.stdout[-3000:]
    after = {path.name: path.read_bytes() for path in (work / "results" / "assignments").iterdir()}
    assert set(after) - set(before) == {"a05.csv"} and all(after[name] == before[name] for name in before)
    assert all(path.read_bytes() == content for path, content in models.items())
    new = pd.read_csv(work / "results" / "assignments" / "a05.csv")
    assert len(new) > 10
    assert (pd.read_csv(work / "results" / "glomeruli.csv")["slide"] == "a05").sum() == len(new)
