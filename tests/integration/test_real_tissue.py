"""The whole workflow on real kidney tissue: short training, so the bars are low; benchmarks/kidney_mini.py trains on."""

import sys

import pandas as pd
import runs
import tifffile
from PIL import Image

from glomerulearn.annotations.features import Frame
from glomerulearn.annotations.reading import read_annotation
from glomerulearn.export import WRITERS
from glomerulearn.slides import open_slide

sys.path.insert(0, str(runs.ROOT / "benchmarks"))
from kidney_mini import slide_sheet

# of every institution one slide to learn from, and as few others as say whether that was learnt
SPLIT = {
    "train": ("HE_I_1_S_1", "HE_I_2_S_4", "HE_I_3_S_3", "PAS_I_4_S_5"),
    "val": ("HE_I_1_S_3",),
    "test": ("HE_I_2_S_2", "HE_I_3_S_1", "PAS_I_4_S_3"),
}


def few_in_other_guises(shared, sheet):
    """Keep the slides of `SPLIT`; write two slides' outlines as other programs would; add a damaged and a truncated slide and
    a plain image."""
    split = {slide: name for name, slides in SPLIT.items() for slide in slides}
    rows = {
        row["slide"]: row | {"split": split[row["slide"]]} for row in runs.read_sheet(sheet) if row["slide"] in split
    }
    for slide, program in (("HE_I_1_S_1", "asap"), ("PAS_I_4_S_5", "imagescope")):
        frame = Frame((slide,), 10_000, 10_000)
        found = read_annotation(rows[slide]["annotation"], {"Normal": "Normal", "Sclerosed": "Sclerosed"}, frame)
        rows[slide]["annotation"] = str(sheet.with_name(f"{slide}.xml"))
        WRITERS[program](sheet.with_name(f"{slide}.xml"), found.outlines)
    whole = (shared / "kidney-mini" / "slides" / "HE_I_3_S_5.svs").read_bytes()
    sheet.with_name("truncated.svs").write_bytes(whole[: len(whole) // 2])
    with tifffile.TiffFile(shared / "kidney-mini" / "slides" / "HE_I_3_S_5.svs") as tiff:
        place, count = max(
            zip(tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts, strict=True), key=lambda tile: tile[1]
        )
    sheet.with_name("damaged.svs").write_bytes(whole[:place] + bytes(count) + whole[place + count :])
    with open_slide(shared / "kidney-mini" / "slides" / "HE_I_2_S_3.svs") as slide:
        Image.fromarray(slide.read(0, 0, slide.width_px, slide.height_px, slide.mpp)).save(sheet.with_name("plain.png"))
    extra = [{"slide": name, "path": f"{name}.svs", "split": "predict"} for name in ("truncated", "damaged")]
    extra.append({"slide": "plain", "path": "plain.png", "mpp": "2.11", "split": "predict"})
    runs.write_sheet(sheet, [*rows.values(), *extra])


def test_kidney_slides_from_tiling_to_grading(shared, tmp_path):
    sheet = slide_sheet(shared, tmp_path / "slides.tsv", "hard")
    few_in_other_guises(shared, sheet)
    config = runs.demo_settings(slides=str(sheet))
    config["embedding"]["extractors"] = ["efficientnet"]
    config["outlines"] = {"classes": {"Normal": "normal", "Sclerosed": "sclerosed"}}
    # SegNet, from scratch, takes longer than a test may to learn real tissue
    config["segmentation"] |= {"segmenters": ["unet"], "epochs": 4, "windows_per_epoch": 320}
    config["segmentation"]["second_look"] |= {"epochs": 0}  # as by default; the demo has it on
    config["segmentation"]["networks"] = {"unet": {"encoder": "efficientnet_lite0", "weights": "package"}}
    config["segmentation"]["learning_rate"] = {"unet": 0.001}
    result = runs.snakemake(tmp_path / "work", config)
    assert result.returncode == 0, result.stdout[-6000:]
    results = tmp_path / "work" / "results"

    quality = pd.read_csv(results / "qc" / "slides.tsv", sep="\t").set_index("slide")
    assert (quality["status"] == "ok").drop("truncated").all()
    assert quality["n_outlines"].sum() == 22 + 154 + 13 + 79 + 41 + 69 + 24 + 94
    assert (quality["reader"].drop(["truncated", "plain"]) == "native JPEG tiles").all()
    formats = quality["annotation_format"].value_counts().to_dict()
    assert formats == {"QuPath GeoJSON": 6, "ASAP XML": 1, "Aperio ImageScope XML": 1}
    assert quality.loc["truncated", "status"] == "failed" and "truncated.svs" in quality.loc["truncated", "reason"]
    assert quality.loc["damaged", "n_damaged"] > 0 and quality.loc["plain", "mpp_origin"] == "sheet"
    scores = pd.read_csv(results / "scores" / "segmenters.tsv", sep="\t")
    test = scores[scores["split"] == "test"]
    assert set(test["slide"]) == {*SPLIT["test"], "all"}
    overall = test[test["slide"] == "all"].set_index("segmenter")
    print(overall.round(3).to_string())
    assert overall.loc["unet", "dice"] > 0.75
    assert (overall["n_glomeruli"] == 69 + 24 + 94).all()

    variants = pd.read_csv(results / "scores" / "variants.tsv", sep="\t")
    assert len(variants) == 20 + 4 and variants[["ari_label", "ari_site", "stability"]].notna().all(axis=None)
    assert (variants["n_labelled"] > 300).all() and (variants["n_sites"] == 4).all()
    grading = pd.read_csv(results / "scores" / "grading.tsv", sep="\t").iloc[0]
    print(grading.to_string())
    assert grading["ari"] > 0.3 and grading["axis_auc"] > 0.9
    glomeruli = pd.read_csv(results / "glomeruli.csv")
    labels = glomeruli["label"].value_counts()
    assert labels["normal"] > 250 and labels["sclerosed"] > 40 and glomeruli["area_um2"].median() > 5_000
