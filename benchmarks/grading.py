"""Crops per second of embedding against the bare network, and minutes of reducing and clustering N glomeruli.

    python benchmarks/grading.py WORK --crops ../shared/data/glomeruli-crops [--rounds 3] [--slides SESCAM_4_0] [--n 2000 20000]
        [--vectors FOLDER] [--workflow 2000]

Embedding is timed as a job does it (crop store to vectors file) and as the bare network on tensors in memory, in turns, in
one run. The N vectors are those of the crops, drawn again with a little noise, so that spaces look as they do in earnest.
With --workflow, the jobs of all variants of the four default extractors are run by Snakemake on two cores, on such vectors.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow_scripts"), str(ROOT / "benchmarks")]

from kidney_mini import crop_sheet

from glomerulearn.clustering import cluster_glomeruli
from glomerulearn.cropping import import_crops
from glomerulearn.embedding import embed_slide
from glomerulearn.extractors import build_extractor
from glomerulearn.models import autocast
from glomerulearn.reduction import REDUCERS, reduce_embeddings
from glomerulearn.vectors import Embeddings, write_vectors

CPU = torch.device("cpu")
FACTS = {"weights": "ImageNet", "scale": "kept"}


def embedding_figures(config: dict, stores: list[Path], work: Path, rounds: int) -> tuple[float, float]:
    """Crops per second of EfficientNet-Lite0: whole jobs, and the bare network on as many forward passes."""
    embedding = config["embedding"]
    settings = embedding["efficientnet"] | {key: embedding[key] for key in ("pixels", "orientations")} | {"seed": 0}
    count = sum(len(Embeddings([embed(store, settings, work)])) for store in stores)
    network = build_extractor("efficientnet", settings, None, CPU)
    size, batch = settings["size_px"], settings["batch"]
    images, masks = torch.randn(batch, 3, size, size), torch.ones(batch, size, size)
    passes = count * settings["orientations"] * len(settings["pixels"]["stain"]) // batch
    times = {"job": [], "bare": []}
    for _ in range(rounds):
        started = time.perf_counter()
        for store in stores:
            embed(store, settings, work)
        times["job"].append(time.perf_counter() - started)
        started = time.perf_counter()
        with torch.no_grad(), autocast("auto", CPU):
            for _ in range(passes):
                network.embed(images, masks)
        times["bare"].append(time.perf_counter() - started)
    return tuple(count / np.median(times[name]) for name in ("job", "bare"))


def embed(store: Path, settings: dict, work: Path) -> Path:
    target = work / "vectors" / f"{store.name.split('.')[0]}.npz"
    embed_slide("efficientnet", store, settings, None, target, CPU, torch.get_num_threads())
    return target


def drawn_again(vectors: np.ndarray, n: int) -> np.ndarray:
    """n vectors float32 that look like some of these: rows drawn again, with a little noise."""
    rng = np.random.default_rng(0)
    drawn = vectors[rng.integers(len(vectors), size=n)]
    return (drawn + rng.normal(0, 0.3, drawn.shape) * vectors.std(0)).astype(np.float32)


def workflow_figures(vectors: list[Path], n: int, work: Path) -> tuple[float, float]:
    """Seconds of clock and of processor that Snakemake's jobs take for all variants of n glomeruli, consensus included."""
    shutil.rmtree(work, ignore_errors=True)
    drawn, slides = drawn_again(Embeddings(vectors).vectors, n), 20
    (work / "results/labels").mkdir(parents=True)
    lines = ["glomerulus\timage\tmask\tslide\tsite\tlabel"]
    for slide, rows in enumerate(np.array_split(np.arange(n), slides)):
        records = pd.DataFrame({"glomerulus": [f"s{slide}-{row}" for row in rows], "cut": False})
        # as long as each extractor's are
        for extractor, length in {"autoencoder": 512, "vgg19": 512, "resnet50": 2048, "efficientnet": 3840}.items():
            target = work / f"results/embeddings/{extractor}/s{slide}.npz"
            write_vectors(target, f"s{slide}", records, drawn[rows, -length:], FACTS)
        lines += [f"{name}\tnone\tnone\ts{slide}\tsite{slide % 4}\t" for name in records["glomerulus"]]
        records.assign(label="", label_iou="")[["glomerulus", "label", "label_iou"]].to_csv(
            work / f"results/labels/s{slide}.csv", index=False
        )
    (work / "crops.tsv").write_text("\n".join(lines) + "\n")
    (work / "none").touch()  # no job opens an image
    (work / "my.yaml").write_text("slides: null\ncrops: crops.tsv\n")
    rules = ("reduce_embeddings", "cluster_glomeruli", "find_consensus", "collect_variants")  # the rest is there
    command = [sys.executable, "-m", "snakemake", "results/scores/variants.tsv", "--snakefile", ROOT / "Snakefile"]
    options = ["--cores", 2, "--directory", work, "--configfile", work / "my.yaml", "--quiet", "all"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([str(part) for part in (*command, *options, "--allowed-rules", *rules)], check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def clustering_figures(config: dict, vectors: list[Path], n: int, work: Path) -> dict[str, float]:
    """Seconds of one extractor's variants, by reducer."""
    drawn = drawn_again(Embeddings(vectors).vectors, n)
    records = pd.DataFrame({"glomerulus": [f"g{i}" for i in range(n)], "cut": False})
    write_vectors(work / "many.npz", "many", records, drawn, FACTS)
    seconds = {}
    for name in REDUCERS:
        started = time.perf_counter()
        reduce_embeddings(
            name,
            [work / "many.npz"],
            config["reduction"].get(name, {}),
            True,
            "none",
            {},
            0,
            work / "r",
            work / "c.npz",
        )
        reduced = time.perf_counter()
        cluster_glomeruli(
            "efficientnet",
            name,
            work / "c.npz",
            {},
            config["clustering"],
            0,
            *(work / end for end in ("f.npz", "k", "v")),
        )
        seconds[name] = reduced - started, time.perf_counter() - reduced
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slides", nargs="+", default=["SESCAM_4_0"], help="embed the crops of these")
    parser.add_argument("--vectors", type=Path, help="folder of vectors of many glomeruli, in place of those slides'")
    parser.add_argument("--n", type=int, nargs="*", default=[2000])
    parser.add_argument("--workflow", type=int, nargs="*", default=[], help="numbers of glomeruli")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    sheet = pd.read_csv(crop_sheet(arguments.crops.resolve().parent, arguments.work / "crops.tsv"), sep="\t")
    stores = []
    for slide, rows in sheet[sheet["slide"].isin(arguments.slides)].groupby("slide"):
        stores.append(arguments.work / f"{slide}.zarr.zip")
        import_crops(slide, rows.to_dict("records"), config["cropping"], stores[-1])
    job, bare = embedding_figures(config, stores, arguments.work, arguments.rounds)
    print(f"embedding: {job:.2f} crops/s as a job, {bare:.2f} of the bare network: {job / bare:.2f}")
    vectors = sorted((arguments.vectors or arguments.work / "vectors").glob("*.npz"))
    for n in arguments.n:
        seconds = clustering_figures(config, vectors, n, arguments.work)
        for name, (reducing, clustering) in seconds.items():
            print(f"{n} glomeruli, {name}: {reducing:.1f} s to reduce, {clustering:.1f} s to cluster and score")
        print(f"{n} glomeruli, all variants of one extractor: {sum(map(sum, seconds.values())):.0f} s on one core")
    for n in arguments.workflow:
        wall, processor = workflow_figures(vectors, n, (arguments.work / f"workflow{n}").resolve())
        print(
            f"{n} glomeruli, all variants of four extractors through Snakemake: {wall:.0f} s, {processor:.0f} of processor"
        )


if __name__ == "__main__":
    main()
