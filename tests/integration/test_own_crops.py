"""A cohort of crops only, real ones, from the sheet to the grades."""

import sys

import pandas as pd
import runs

sys.path.insert(0, str(runs.ROOT / "benchmarks"))
from kidney_mini import crop_sheet


def test_own_crops_without_slides(shared, tmp_path):
    sheet = crop_sheet(shared, tmp_path / "crops.tsv")
    table = pd.read_csv(sheet, sep="\t")
    few = table.drop_duplicates("slide").groupby("site").head(2)["slide"]
    table = table[table["slide"].isin(few)].groupby("slide").head(8)
    table.to_csv(sheet, sep="\t", index=False)
    config = runs.demo_settings(slides=None, crops=str(sheet))
    config["reduction"] = {"reducers": ["none", "pca"]}
    config["embedding"]["extractors"] = ["resnet50", "efficientnet"]
    result = runs.snakemake(tmp_path / "work", config)
    assert result.returncode == 0, result.stdout[-6000:]
    variants = pd.read_csv(tmp_path / "work" / "results" / "scores" / "variants.tsv", sep="\t")
    assert len(variants) == 2 * 2 * 4 + 4 and (variants["n"] == len(table)).all()
    assert (variants["n_labelled"] == len(table)).all() and (variants["n_sites"] == 3).all()
    assert set(variants.loc[variants["weights"] == "random", "extractor"]) == {"resnet50"}
    unlabelled = variants["chosen"].str.contains("without labels", na=False)
    assert unlabelled.sum() == 1 and (variants.loc[unlabelled, "weights"] != "random").all()
    glomeruli = pd.read_csv(tmp_path / "work" / "results" / "glomeruli.csv")
    assert (glomeruli["random_weights"] == "resnet50").all()
    assert sorted(glomeruli["glomerulus"]) == sorted(table["glomerulus"])
    assert not (tmp_path / "work" / "results" / "graded").exists()  # crops have no outlines
