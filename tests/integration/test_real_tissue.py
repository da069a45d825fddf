"""The whole workflow on real kidney tissue: short training, so the bars are low; benchmarks/kidney_mini.py trains on."""

import sys

import pandas as pd
import runs

sys.path.insert(0, str(runs.ROOT / "benchmarks"))
from kidney_mini import SPLITS, crop_sheet, slide_sheet


def test_kidney_slides_from_tiling_to_grading(shared, tmp_path):
    config = runs.demo_settings(slides=str(slide_sheet(shared, tmp_path / "slides.tsv")))
    config["outlines"] = {"classes": {"Normal": "normal", "Sclerosed": "sclerosed"}}
    config["segmentation"] |= {"epochs": 10, "windows_per_epoch": 800, "patience": 10}
    result = runs.snakemake(tmp_path / "work", config)
    assert result.returncode == 0, result.stdout[-6000:]
    results = tmp_path / "work" / "results"

    quality = pd.read_csv(results / "qc" / "slides.tsv", sep="\t")
    assert (quality["status"] == "ok").all() and quality["n_outlines"].sum() == 788
    scores = pd.read_csv(results / "scores" / "segmenters.tsv", sep="\t")
    test = scores[scores["split"] == "test"]
    assert set(test["slide"]) == {*SPLITS["test"], "all"}
    overall = test[test["slide"] == "all"].set_index("segmenter")
    print(overall.round(3).to_string())
    assert overall.loc["unet", "dice"] > 0.7 and overall.loc["segnet", "dice"] > 0.65
    assert (overall["n_glomeruli"] == 60 + 69 + 24 + 94).all()

    variants = pd.read_csv(results / "scores" / "variants.tsv", sep="\t")
    # trained this briefly, the networks miss the sclerosed glomeruli: with one label only there is no ARI with it
    assert len(variants) == 45 and variants[["ari_site", "stability"]].notna().all(axis=None)
    assert (variants["n_labelled"] > 400).all() and (variants["n_sites"] == 4).all()
    glomeruli = pd.read_csv(results / "glomeruli.csv")
    assert (glomeruli["label"] == "normal").sum() > 400 and glomeruli["area_um2"].median() > 5_000


def test_own_crops_without_slides(shared, tmp_path):
    sheet = crop_sheet(shared, tmp_path / "crops.tsv")
    table = pd.read_csv(sheet, sep="\t").groupby("slide").head(8)
    table.to_csv(sheet, sep="\t", index=False)
    config = runs.demo_settings(slides=None, crops=str(sheet))
    config["reduction"] = {"reducers": ["none", "pca"]}
    result = runs.snakemake(tmp_path / "work", config)
    assert result.returncode == 0, result.stdout[-6000:]
    variants = pd.read_csv(tmp_path / "work" / "results" / "scores" / "variants.tsv", sep="\t")
    assert len(variants) == 3 * 2 * 3 and (variants["n"] == len(table)).all()
    assert (variants["n_labelled"] == len(table)).all() and (variants["n_sites"] == 3).all()
    glomeruli = pd.read_csv(tmp_path / "work" / "results" / "glomeruli.csv")
    assert sorted(glomeruli["glomerulus"]) == sorted(table["glomerulus"])
