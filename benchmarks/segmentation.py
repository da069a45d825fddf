"""What training and inference cost against the bare network; both figures of each ratio from one run.

    python benchmarks/segmentation.py WORK [--preset cpu] [--segmenters unet segnet] [--slides DATA] [--models MODELS]

Tiles one synthetic slide in WORK, or the slides of DATA/kidney-mini, and prints for every segmenter
  training     windows per second of a whole step fed from the patch stores (reading, augmentation, optimiser, average of
               weights) against forward and backward on tensors that lie in memory
  second look  the same for the training of the second look, from MODELS/SEGMENTER/first_look
  inference    windows per second from patch store and slide to mask store, outlines and table against the networks on
               tensors in memory
with the settings of the preset. MODELS is results/models of a cohort with DATA's slides; the second look is measured where its
segmenters have one (networks that have learned nothing would look everywhere). Jobs take turns and the medians of the rounds
count, because a machine changes its speed: a ratio is of two jobs that ran one after the other, and its range is printed.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from glomerulearn import synthetic
from glomerulearn.detection import detect_glomeruli, find_size
from glomerulearn.inference import infer_slide, predict, window_in_store_px
from glomerulearn.losses import deep_loss
from glomerulearn.models import autocast, load_second_look, load_segmenter, pick_device, precision_of, save_model
from glomerulearn.networks.folding import folded
from glomerulearn.networks.segmenters import build_segmenter
from glomerulearn.patches import PatchStore
from glomerulearn.sampling import tissue_windows
from glomerulearn.second_look import candidates, window_corners
from glomerulearn.second_look_training import second_look_trainer
from glomerulearn.slide_outlines import read_slide_outlines
from glomerulearn.tiling import tile_slide
from glomerulearn.training import segmenter_trainer

_STEPS = 24  # of a training round: fewer are over before a busy machine has shown its usual speed


def settings_of(preset: str) -> dict:
    """config.yaml with what the preset changes."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    if preset != "full":
        _merge(config, yaml.safe_load((ROOT / "config" / "presets" / f"{preset}.yaml").read_text()))
    return config


def _merge(base: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def make_slides(work: Path, config: dict, data: Path | None) -> list[tuple[Path, Path, Path]]:
    """Patch stores, outlines and files of the slides to train on and to infer."""
    if data is None:
        recipe = synthetic.Recipe(6000, 6000, mpp=2.0, glomeruli=60, cut_share=0)
        truth = synthetic.make_slide(work / "made.svs", recipe, seed=0)
        synthetic.write_outlines(work / "made.geojson", list(zip(truth.polygons, truth.grades, strict=True)), "made")
        slides = [(work / "made.svs", work / "made.geojson")]
        classes = {f"Grade {grade}": f"grade {grade}" for grade in range(4)}
    else:
        slides = [
            (path, data / "kidney-mini" / "annotations" / f"{path.stem}.geojson")
            for path in sorted((data / "kidney-mini" / "slides").glob("*.svs"))
        ]
        classes = {"Normal": "normal", "Sclerosed": "sclerosed"}
    made = []
    for path, annotation in slides:
        made.append((work / f"{path.stem}.zarr.zip", work / f"{path.stem}.read.geojson", path))
        tile_slide(path.stem, path, None, config["tiling"], made[-1][0])
        read_slide_outlines(
            path.stem, path, annotation, None, {"classes": classes, "label_images": "class"}, made[-1][1]
        )
    return made


def seconds(jobs: dict, rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each job in each round; a first round, not counted, warms up."""
    times = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # a GPU is only told what to do
            times[name].append(time.perf_counter() - started)
    return {name: np.array(values[1:]) for name, values in times.items()}


def training_figures(name: str, config: dict, slides, rounds: int, device, models: Path | None = None):
    """Windows per second of whole steps, and of the bare network's forward and backward, in each round.

    models: train the second look of the segmenters there in place of the first.
    """
    segmentation = config["segmentation"]
    chosen = dict(segmentation, seed=0, network=segmentation["networks"][name], windows_per_epoch=0)
    chosen["learning_rate"] = segmentation["learning_rate"][name]
    if models:
        chosen |= segmentation["second_look"] | {"epochs": 1}  # 0 where config has it off
        chosen["learning_rate"] = chosen["learning_rate"][name]
    chosen["windows_per_epoch"] = _STEPS * chosen["batch"]
    pairs = [slide[:2] for slide in slides]
    if models:
        scans = {PatchStore(patches).slide: path for patches, _, path in slides}
        trainer = second_look_trainer(
            *load_segmenter(models / name / "first_look", device), pairs, scans, chosen, device
        )
    else:
        trainer = segmenter_trainer(name, pairs, chosen, device)
    size = chosen["window_px"], chosen["window_px"]
    images = torch.randn(chosen["batch"], 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 2, (chosen["batch"], *size), device=device)
    weights = torch.ones(labels.shape, device=device)
    bare = build_segmenter(name, dict(chosen["network"]) | {"weights": "none"}, 2)
    bare = bare.to(device, memory_format=torch.channels_last).train()

    def step():
        for _ in range(_STEPS):
            with autocast(chosen["precision"], device):
                outputs = bare(images)
            bare.zero_grad()
            deep_loss(outputs, labels, weights)[0].backward()

    epochs = iter(range(1, 1000))
    times = seconds({"fed": lambda: trainer.run_epoch(next(epochs)), "bare": step}, rounds)
    return chosen["windows_per_epoch"] / times["fed"], chosen["windows_per_epoch"] / times["bare"]


def inference_figures(name: str, config: dict, slide, work: Path, rounds: int, device, models: Path | None):
    """Windows per second in each round: from patch store to outlines, and the bare networks'."""
    network = dict(config["segmentation"]["networks"][name]) | {"weights": "none"}
    folder = models / name if models else work / name
    if not models:
        facts = {"segmenter": name, "network": network, "classes": ["glomerulus"], "mpp": config["tiling"]["mpp"]}
        facts["normalise"] = config["segmentation"]["normalise"]
        save_model(folder, build_segmenter(name, network).state_dict(), facts, [{"epoch": 0}])
    detection = config["detection"]
    batch, flips = detection["batch"], detection["flips"]
    model, facts = load_segmenter(folder, device)
    model = folded(model, device)
    patches = PatchStore(slide[0], normalise=facts["normalise"])
    _, enlarged = find_size(model, facts, patches, detection, device)

    def windows(*zooms: float) -> int:
        fields = [window_in_store_px(detection, zoom) for zoom in zooms]
        return sum(len(list(tissue_windows(patches, size, size - overlap))) for size, overlap in fields)

    # network, side of its windows, how many, how many at once, whether in all mirror images
    looks = [(model, detection["window_px"], windows(*(zoom * enlarged for zoom in detection["zooms"])), batch, flips)]
    if facts.get("usual_um"):
        looks.append((model, detection["window_px"], windows(1), batch, False))
    second = load_second_look(folder, device)
    if second:
        size, zoom = facts["second_look"]["window_px"], facts["second_look"]["zoom"]
        first = infer_slide(model, facts, patches, detection, device, enlarged=enlarged)
        side = round(size / (zoom * enlarged))
        regions = candidates(first, patches.mpp)
        count = sum(len(list(window_corners(region.bbox, side))) for region in regions)
        looks.append((folded(second, device), size, count, batch * detection["window_px"] ** 2 // size**2, flips))
    total = sum(count for _, _, count, _, _ in looks)
    targets = [work / f"{name}.{end}" for end in ("zarr.zip", "geojson", "csv")]

    def whole():
        detect_glomeruli(slide[0], slide[2], folder, detection, *targets, device, torch.get_num_threads())

    def bare():
        for network, size, count, at_once, mirrored in looks:
            images = torch.randn(at_once, 3, size, size, device=device)
            for start in range(0, count, at_once):
                predict(network, images[: count - start], mirrored, precision_of(facts))

    times = seconds({"whole": whole, "bare": bare}, rounds)
    return total / times["whole"], total / times["bare"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--preset", default="cpu", choices=["full", "cpu", "demo", "original"])
    parser.add_argument("--segmenters", nargs="+", default=["unet", "segnet"])
    parser.add_argument("--slides", type=Path, help="folder that holds kidney-mini")
    parser.add_argument("--models", type=Path, help="results/models of a run on these slides")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    device = pick_device(1)
    config = settings_of(options.preset)
    slides = make_slides(options.work, config, options.slides)
    largest = max(slides, key=lambda slide: len(PatchStore(slide[0]).grid))
    print(f"{device}, {options.threads} threads, preset {options.preset}, {len(slides)} slide(s)")
    print(f"{'windows per second':24} {'whole':>8} {'bare':>8} {'ratio':>6} {'range':>11}")
    for name in options.segmenters:
        print(f"  {json.dumps(config['segmentation']['networks'][name])}")
        jobs = {"training": lambda name=name: training_figures(name, config, slides, options.rounds, device)}
        if options.models and (options.models / name / "first_look").exists():
            jobs["second look"] = lambda name=name: training_figures(
                name, config, slides, options.rounds, device, options.models
            )
        jobs["inference"] = lambda name=name: inference_figures(
            name, config, largest, options.work, options.rounds, device, options.models
        )
        for what, job in jobs.items():
            whole, bare = job()
            ratios = whole / bare
            medians = f"{np.median(whole):8.2f} {np.median(bare):8.2f} {np.median(ratios):6.2f}"
            print(f"{name + ' ' + what:24} {medians}   {ratios.min():.2f}-{ratios.max():.2f}", flush=True)


if __name__ == "__main__":
    main()
