"""Train on real kidney slides as long as two CPU cores pay for, and print what came out.

    python benchmarks/kidney_mini.py DATA WORK [--cores 2] [--split hard] [--seed 1] [--leave-out] [--only slides]

DATA holds `kidney-mini` (14 slides with every glomerulus outlined) and `glomeruli-crops` (504 labelled crops). Two runs of
the workflow with `preset: cpu`: one on the slides, from tiling to grading, one on the crops (`--only crops --extractors
efficientnet` is the shortest). VGG19 and ResNet50 get random weights unless --vgg19 and --resnet50 name local ImageNet weights.
With --leave-out the segmenters are also trained without each institution and judged there. An interrupted run goes on where
it was.
"""

import argparse
import csv
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
# every institution and both stains in test; `mixed`: of every institution the slide with the most sclerosis is there to learn
# from; `hard`: the sclerosed glomeruli of one laboratory are, nearly alone
SPLITS = {
    "mixed": {
        "val": ("HE_I_3_S_5", "PAS_I_4_S_5"),
        "test": ("HE_I_1_S_3", "HE_I_2_S_2", "HE_I_3_S_3", "PAS_I_4_S_4"),
    },
    "hard": {
        "val": ("HE_I_1_S_3", "PAS_I_4_S_4"),
        "test": ("HE_I_1_S_2", "HE_I_2_S_2", "HE_I_3_S_1", "PAS_I_4_S_3"),
    },
}


def slide_sheet(data: Path, target: Path, kind: str = "mixed") -> Path:
    """Write the slide sheet of kidney-mini: 8 slides to train on, 2 to validate, 4 to test."""
    split = {slide: name for name, slides in SPLITS[kind].items() for slide in slides}
    with target.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["slide", "path", "annotation", "split", "site", "stain"])
        for path in sorted((data / "kidney-mini" / "slides").glob("*.svs")):
            annotation = data / "kidney-mini" / "annotations" / f"{path.stem}.geojson"
            site = path.stem.rsplit("_S_", 1)[0]
            writer.writerow([path.stem, path, annotation, split.get(path.stem, "train"), site, site.split("_")[0]])
    return target


def crop_sheet(data: Path, target: Path) -> Path:
    """Write the crop sheet of glomeruli-crops."""
    folder = data / "glomeruli-crops"
    table = pd.read_csv(folder / "labels.tsv", sep="\t", dtype=str)
    table["image"] = [folder / "crops" / f"{name}.png" for name in table["glomerulus"]]
    table["mask"] = [folder / "masks" / f"{name}.png" for name in table["glomerulus"]]
    table[["glomerulus", "image", "mask", "slide", "site", "label"]].to_csv(target, sep="\t", index=False)
    return target


def run(work: Path, config: dict, cores: int, goal: str) -> float:
    """Run the workflow in `work` up to the rule `goal`; returns seconds."""
    started = time.perf_counter()
    (work / "config.yaml").write_text(yaml.safe_dump(config))
    command = [
        sys.executable,
        "-m",
        "snakemake",
        goal,
        "--cores",
        str(cores),
        "--directory",
        str(work),
        "--quiet",
        "all",
        # trainings side by side get through more windows than one after the other with all cores each
        "--set-threads",
        *(f"{rule}={max(1, cores // 2)}" for rule in ("train_segmenter", "train_second_look")),
    ]
    subprocess.run([*command, "--configfile", str(work / "config.yaml")], check=True, cwd=ROOT)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="fewer than the preset's, to try the benchmark out")
    parser.add_argument("--split", default="mixed", choices=SPLITS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--leave-out", action="store_true", help="train again without each institution")
    parser.add_argument("--segmenters", nargs="+", default=["segnet", "unet"])
    parser.add_argument("--extractors", nargs="+", help="fewer or others than the configuration's")
    parser.add_argument("--only", choices=["slides", "segmentation", "crops"], help="one part of it")
    for extractor in ("vgg19", "resnet50"):
        parser.add_argument(f"--{extractor}", default="random", help="local ImageNet weights")
    arguments = parser.parse_args()
    data, work = arguments.data.resolve(), arguments.work.resolve()
    embedding = {name: {"weights": getattr(arguments, name)} for name in ("vgg19", "resnet50")}
    if arguments.extractors:
        embedding["extractors"] = arguments.extractors
    base = {"preset": "cpu", "embedding": embedding, "seed": arguments.seed}
    base["segmentation"] = {"segmenters": arguments.segmenters}
    if arguments.epochs:
        base["segmentation"]["epochs"] = arguments.epochs
    if arguments.leave_out:
        base["cross_validate"] = {"group": "site", "folds": None}
    for name, keys in (("slides", {"crops": None}), ("crops", {"slides": None})):
        if arguments.only and (arguments.only == "crops") != (name == "crops"):
            continue
        folder = work / name
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{name}.tsv"
        sheet = slide_sheet(data, target, arguments.split) if name == "slides" else crop_sheet(data, target)
        goal = "segmentation" if arguments.only == "segmentation" else "all"
        seconds = run(folder, base | keys | {name: str(sheet)}, arguments.cores, goal)
        print(f"\n{name}: {seconds / 60:.1f} min on {arguments.cores} cores (of this call only, if it was resumed)")
        if name == "slides":
            for table in ("segmenters", "comparison", *(["cross_validation"] if arguments.leave_out else [])):
                scores = pd.read_csv(folder / f"results/scores/{table}.tsv", sep="\t")
                print(scores.round(3).to_string(index=False))
        if goal == "all":
            variants = pd.read_csv(folder / "results/scores/variants.tsv", sep="\t")
            columns = [
                "extractor",
                "reducer",
                "method",
                "k",
                "ari_label",
                "ari_site",
                "stability",
                "merit",
                "n",
                "chosen",
            ]
            print(variants[columns].round(3).to_string(index=False))
            for table in ("grading", "probes"):
                print(pd.read_csv(folder / f"results/scores/{table}.tsv", sep="\t").round(3).to_string(index=False))


if __name__ == "__main__":
    main()
