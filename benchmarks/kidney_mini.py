"""Train on real kidney slides as long as two CPU cores pay for, and print what came out.

    python benchmarks/kidney_mini.py DATA WORK [--cores 2]

DATA holds `kidney-mini` (14 slides with every glomerulus outlined) and `glomeruli-crops` (504 labelled crops). Two runs of
the workflow with `preset: cpu`: one on the slides, from tiling to grading, one on the crops. VGG19 and ResNet50 get random
weights unless --vgg19 and --resnet50 name local ImageNet weights. An interrupted run goes on where it was.
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
# every institution and both stains in test
SPLITS = {
    "val": ("HE_I_1_S_3", "PAS_I_4_S_4"),
    "test": ("HE_I_1_S_2", "HE_I_2_S_2", "HE_I_3_S_1", "PAS_I_4_S_3"),
}


def slide_sheet(data: Path, target: Path) -> Path:
    """Write the slide sheet of kidney-mini: 8 slides to train on, 2 to validate, 4 to test."""
    split = {slide: name for name, slides in SPLITS.items() for slide in slides}
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


def run(work: Path, config: dict, cores: int) -> float:
    """Run the workflow in `work`; returns seconds."""
    started = time.perf_counter()
    (work / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--directory", str(work), "--quiet", "all"]
    subprocess.run([*command, "--configfile", str(work / "config.yaml")], check=True, cwd=ROOT)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="fewer than the preset's, to try the benchmark out")
    for extractor in ("vgg19", "resnet50"):
        parser.add_argument(f"--{extractor}", default="random", help="local ImageNet weights")
    arguments = parser.parse_args()
    data, work = arguments.data.resolve(), arguments.work.resolve()
    embedding = {name: {"weights": getattr(arguments, name)} for name in ("vgg19", "resnet50")}
    base = {"preset": "cpu", "embedding": embedding}
    if arguments.epochs:
        base["segmentation"] = {"epochs": arguments.epochs}
    for name, keys in (("slides", {"crops": None}), ("crops", {"slides": None})):
        folder = work / name
        folder.mkdir(parents=True, exist_ok=True)
        sheet = (slide_sheet if name == "slides" else crop_sheet)(data, folder / f"{name}.tsv")
        seconds = run(folder, base | keys | {name: str(sheet)}, arguments.cores)
        print(f"\n{name}: {seconds / 60:.1f} min on {arguments.cores} cores (of this call only, if it was resumed)")
        if name == "slides":
            scores = pd.read_csv(folder / "results/scores/segmenters.tsv", sep="\t")
            print(scores.round(3).to_string(index=False))
        columns = ["extractor", "reducer", "metric", "k", "ari_label", "ari_site", "stability", "n", "weights"]
        print(pd.read_csv(folder / "results/scores/variants.tsv", sep="\t")[columns].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
