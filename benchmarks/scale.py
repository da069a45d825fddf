"""What very many slides and glomeruli cost: jobs to plan, and vectors to reduce and cluster.

    python benchmarks/scale.py sheets WORK [--slides 1000 10000] [--outlined 0.02] [--bare 1000]
    python benchmarks/scale.py clusters WORK [--n 100000 1000000] [--d 1280] [--reducers pca umap]

`sheets` writes slide sheets whose slides are empty of pixels, and measures, of the workflow and of a bare Snakefile with the
same jobs and files and nothing else in it (no parameters, resources, scripts or environments): a dry run, and the check
that nothing is to be done over stand-in results. Processor time and peak memory of the process, less those of a cohort of
10 slides, over the jobs: what a job costs, without what it costs to start.

`clusters` makes vectors of N glomeruli, a thousand a slide (five clouds of 35 to 10 % in D dimensions), and measures for every
reducer, each step in a process of its own: fitting it; fitting K-means and all other clusterers; placing the glomeruli of ten
slides, few of which were fitted, and how well the clusters of those are the clouds. `silhouette`, which it starts with: how far
the silhouette of a sample is from that of 20,000 points.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

FEW = 10  # slides of the cohort that stands for the start of Snakemake and for the jobs of a whole cohort
TARGETS = "targets: 1 ms and 20 kB a job, 10 jobs a slide"

# what a slide is made into, file by file as the workflow does it
BARE = """
SLIDES = [f"s{number:07}" for number in range(int(config["slides"]))]
EXTRACTORS = ["autoencoder", "vgg19", "resnet50", "efficientnet"]
SPACES = [f"{extractor}_{reducer}" for extractor in EXTRACTORS for reducer in ("none", "pca", "isomap", "tsne", "umap")]
rule all:
    input: expand("results/detections/{slide}.geojson", slide=SLIDES), "results/glomeruli.csv"
rule tile:
    output: "results/patches/{slide}.zip", "results/qc/{slide}.json"
    shell: "touch {output}"
rule train:
    output: "results/models/weights", "results/models/facts"
    shell: "touch {output}"
rule infer:
    input: "results/patches/{slide}.zip", "results/models/weights", "results/models/facts"
    output: multiext("results/detections/{slide}", ".zip", ".geojson", ".csv")
    shell: "touch {output}"
rule crop:
    input: "results/detections/{slide}.zip", "results/detections/{slide}.csv"
    output: "results/crops/{slide}.zip"
    shell: "touch {output}"
rule embed:
    input: "results/crops/{slide}.zip"
    output: "results/embeddings/{extractor}/{slide}.npz"
    wildcard_constraints: extractor="|".join(EXTRACTORS)
    shell: "touch {output}"
rule measure:
    input: "results/crops/{slide}.zip"
    output: "results/embeddings/morphology/{slide}.npz"
    shell: "touch {output}"
rule fit:
    output: "results/fits/{space}.joblib", "results/fits/{space}.npz"
    shell: "touch {output}"
rule pack:
    input: expand("results/fits/{space}.{kind}", space=SPACES, kind=("joblib", "npz"))
    output: "results/fits/fitted.zip"
    shell: "touch {output}"
rule assign:
    input:
        expand("results/embeddings/{extractor}/{{slide}}.npz", extractor=EXTRACTORS),
        "results/fits/fitted.zip",
    output: "results/assignments/{slide}.csv"
    shell: "touch {output}"
rule collect:
    input:
        expand("results/assignments/{slide}.csv", slide=SLIDES),
        expand("results/detections/{slide}.csv", slide=SLIDES),
        expand("results/qc/{slide}.json", slide=SLIDES),
        expand("results/embeddings/morphology/{slide}.npz", slide=SLIDES),
    output: "results/glomeruli.csv"
    shell: "touch {output}"
"""

# Snakemake with a scheduler that makes every output an empty file and notes it as made, as a job would have
PRETEND = """
import os, sys
from pathlib import Path
from snakemake.cli import main
from snakemake.scheduling.job_scheduler import JobScheduler

def schedule(self):
    workflow = self.workflow
    async def pretend():
        for job in workflow.dag.jobs:
            for file in job.output:
                file = Path(file, ".snakemake_timestamp") if file.is_directory else Path(file)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
                os.utime(file, (1.7e9, 1.7e9))  # none is newer than another
            await workflow.persistence.finished(job)
    workflow.async_run(pretend())
    self._executor.shutdown()
    print("jobs", len(list(workflow.dag.jobs)))
    return True

JobScheduler.schedule = schedule
main(sys.argv[1:])
"""


class Cost(NamedTuple):
    """What a process took: seconds of clock and of processor, and its peak memory in kB."""

    wall: float
    cpu: float
    memory: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


def run(command: Sequence, folder: Path) -> tuple[Cost, str]:
    """Run a command to its end: what it took, and what it said.

    The memory of this process must stay small: a child's peak counts its parent's from before it became another program.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    started = time.perf_counter()
    log = folder / "said.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
    text = log.read_text()
    if status:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{text[-3000:]}")
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss), text


def write_cohort(folder: Path, slides: int, outlined: float) -> list[str]:
    """A sheet of slides without pixels; returns how Snakemake is called for it.

    outlined: share of slides with outlines, in turns `train`, `val` and `test`; the others are `predict`.
    """
    (folder / "slides").mkdir(parents=True, exist_ok=True)
    splits, lines, due = ("train", "val", "test"), ["slide\tpath\tannotation\tsplit\tpatient\tsite"], 0
    for number in range(slides):
        name, outline, split = f"s{number:07}", "", "predict"
        (folder / f"slides/{name}.svs").write_text(name)
        if number < 3 or due < int(number * outlined):
            outline, split, due = f"slides/{name}.geojson", splits[due % 3], due + 1
            (folder / outline).write_text("{}")
        lines.append(f"{name}\tslides/{name}.svs\t{outline}\t{split}\tP{number}\tsite{number % 7}")
    (folder / "slides.tsv").write_text("\n".join(lines) + "\n")
    (folder / "my.yaml").write_text("slides: slides.tsv\npreset: cpu\n")
    return ["--snakefile", ROOT / "Snakefile", "--configfile", folder / "my.yaml", "--directory", folder]


def write_bare(folder: Path, slides: int) -> list[str]:
    """The bare Snakefile; returns how Snakemake is called for it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Snakefile").write_text(BARE)
    return ["--snakefile", folder / "Snakefile", "--config", f"slides={slides}", "--directory", folder]


def plan(folder: Path, arguments: Sequence) -> dict:
    """Dry run, stand-in results, and the check that nothing is to be done: the number of jobs and what each took."""
    profile = ["--workflow-profile", ROOT / "profiles" / "default", "--cores", 2]
    snakemake = [sys.executable, "-m", "snakemake", *arguments, *profile]
    # not a word about each job, which would take half as long again
    dry = ["-n", "--quiet", "rules", "progress"]
    fresh, _ = run([*snakemake, *dry], folder)
    print(f"# {folder.name} slides: dry run {fresh.cpu:.0f} s of processor, {fresh.memory / 1024:.0f} MB", flush=True)
    _, said = run([sys.executable, "-c", PRETEND, *arguments, *profile, "--touch", "--quiet", "all"], folder)
    jobs = int(said.split("jobs ")[1].split()[0])
    again, said = run([*snakemake, *dry], folder)
    if "Nothing to be done" not in said:
        raise RuntimeError(f"something is to be done over finished results:\n{said[-2000:]}")
    return {"jobs": jobs, "dry run": fresh, "no-op check": again}


def measure_sheets(work: Path, counts: Sequence[int], bare: Sequence[int], outlined: float) -> None:
    """Print what a job costs the workflow and the bare Snakefile, and how many jobs a slide has."""
    print(f"{TARGETS}; per job: ms of processor, ms of clock, kB", flush=True)
    for name, sizes in (("bare", bare), ("workflow", counts)):
        small = None
        for slides in [FEW, *sizes]:
            folder = work / name / str(slides)
            shutil.rmtree(folder, ignore_errors=True)
            arguments = write_bare(folder, slides) if name == "bare" else write_cohort(folder, slides, outlined)
            found = plan(folder, arguments)
            small = small or found
            if slides == FEW:
                continue
            more = found["jobs"] - small["jobs"]
            print(f"{name}, {slides} slides: {found['jobs']} jobs, {more / (slides - FEW):.2f} a slide more")
            for what in ("dry run", "no-op check"):
                cost, each = found[what], found[what] - small[what]
                print(
                    f"  {what:12} {each.cpu / more * 1000:5.2f} ms {each.wall / more * 1000:5.2f} ms {each.memory / more:5.1f} kB"
                    f"   whole: {cost.cpu:.0f} s of processor, {cost.wall:.0f} s, {cost.memory / 1024:.0f} MB",
                    flush=True,
                )


SHARES = (0.35, 0.25, 0.15, 0.15, 0.1)
PER_SLIDE = 1000  # glomeruli
PLACED = 10  # slides whose glomeruli are placed


def clouds(n: int, d: int, seed: int):
    """Vectors float32 (n, d) whose spread falls from dimension to dimension, in five clouds; and the cloud of each."""
    import numpy as np

    places = np.random.default_rng(0).normal(size=(len(SHARES), d)) * 3 / np.sqrt(1 + np.arange(d))
    rng = np.random.default_rng(seed)
    which = rng.choice(len(SHARES), n, p=SHARES)
    spread = (1 / np.sqrt(1 + np.arange(d))).astype(np.float32)
    return rng.standard_normal((n, d), np.float32) * spread + places[which].astype(np.float32), which


def write_glomeruli(folder: Path, n: int, d: int) -> None:
    """Vectors of n glomeruli as jobs would have written them; a name ends with the cloud."""
    import numpy as np

    (folder / "vectors").mkdir(parents=True, exist_ok=True)
    for number in range(n // PER_SLIDE):
        vectors, which = clouds(PER_SLIDE, d, number + 1)
        slide = f"s{number:05}"
        names = np.array([f"{slide}-{index:04}-{cloud}" for index, cloud in enumerate(which)], dtype=str)
        facts = json.dumps({"slide": slide, "extractor": "x", "weights": "made", "scale": "kept"})
        cut = np.zeros(PER_SLIDE, bool)
        np.savez(folder / "vectors" / f"{slide}.npz", glomerulus=names, vectors=vectors, cut=cut, facts=facts)


def step(folder: Path, reducer: str, name: str) -> None:
    """One job of `clusters`, in the process that is measured."""
    import numpy as np
    import yaml
    from sklearn.metrics import adjusted_rand_score

    from glomerulearn.assignment import assign_clusters
    from glomerulearn.clusterers import CLUSTERERS
    from glomerulearn.clustering import cluster_glomeruli
    from glomerulearn.fitted import pack_fits
    from glomerulearn.reduction import reduce_embeddings

    if name == "write":
        write_glomeruli(folder, *map(int, folder.name.split("x")))
        return
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    paths = sorted((folder / "vectors").glob("*.npz"))
    model, coordinates, fits = (folder / f"{reducer}.{kind}" for kind in ("joblib", "coordinates.npz", "fits.npz"))
    if name == "reduce":
        settings = config["reduction"].get(reducer, {})
        reduce_embeddings(reducer, paths, settings, True, "none", {}, 0, model, coordinates)
    elif name == "cluster":
        settings = {
            "k_range": config["clustering"]["k_range"], "metrics": ["silhouette"], "clusterers": ["kmeans", *CLUSTERERS],
        }  # fmt: skip
        scores = folder / f"{reducer}.k.tsv", folder / f"{reducer}.variants.tsv"
        cluster_glomeruli("x", reducer, coordinates, {}, settings, 0, fits, *scores)
    else:
        fitted = folder / f"{reducer}.zip"
        pack_fits({("x", reducer): model}, {("x", reducer): fits}, (), fitted)
        tables = [
            assign_clusters(path.stem, "", {"x": path}, fitted, folder / "assigned.csv") for path in paths[:PLACED]
        ]
        truth = np.concatenate([table["glomerulus"].str[-1] for table in tables])
        for method in ("silhouette", *CLUSTERERS):
            found = np.concatenate([table[f"x_{reducer}_{method}"] for table in tables])
            print(f"ARI with the clouds, {method}: {adjusted_rand_score(truth, found):.3f}")


def measure_clusters(work: Path, counts: Sequence[int], d: int, reducers: Sequence[str]) -> None:
    """Print what every step takes for each number of glomeruli."""

    def take(folder: Path, name: str, reducer: str = "none") -> tuple[Cost, str]:
        return run([sys.executable, __file__, "step", folder, "--reducers", reducer, "--step", name], folder)

    work.mkdir(parents=True, exist_ok=True)
    print(run([sys.executable, __file__, "silhouette", work], work)[1], end="", flush=True)
    for n in counts:
        folder = work / f"{n}x{d}"
        if not (folder / "vectors").exists():
            folder.mkdir(exist_ok=True)
            take(folder, "write")
        for reducer in reducers:
            for name in ("reduce", "cluster", "assign"):
                cost, said = take(folder, name, reducer)
                extra = "; ".join(line for line in said.splitlines() if line.startswith("ARI")).replace(
                    "ARI with the clouds, ", ""
                )
                print(
                    f"{n} {reducer:7} {name:8} {cost.cpu:6.0f} s of processor {cost.memory / 1024:6.0f} MB  {extra}",
                    flush=True,
                )


def measure_silhouette(n: int = 20_000, d: int = 10, seeds: int = 20) -> None:
    """Print how far the silhouette of a sample is from that of all points."""
    import numpy as np
    from sklearn.metrics import silhouette_score

    from glomerulearn.clusterers import LARGEST, silhouette

    points, which = clouds(n, d, 0)
    exact = silhouette_score(points, which)
    errors = np.array([silhouette(points, which, seed) for seed in range(seeds)]) - exact
    print(
        f"silhouette of {n} points {exact:.4f}; of samples of {LARGEST}: mean error {errors.mean():+.4f}, standard error "
        f"{errors.std():.4f}, largest {np.abs(errors).max():.4f} ({seeds} samples); at most {LARGEST**-0.5:.4f} of any data"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sheets", "clusters", "silhouette", "step"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--slides", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--bare", type=int, nargs="*", default=[1000])
    parser.add_argument("--outlined", type=float, default=0.02)
    parser.add_argument("--n", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--d", type=int, default=1280)
    parser.add_argument("--reducers", nargs="+", default=["none", "pca", "isomap", "tsne", "umap"])
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = options.work.resolve()
    if options.what == "sheets":
        measure_sheets(work, options.slides, options.bare, options.outlined)
    elif options.what == "clusters":
        measure_clusters(work, options.n, options.d, options.reducers)
    elif options.what == "silhouette":
        measure_silhouette()
    else:
        step(work, options.reducers[0], options.step)


if __name__ == "__main__":
    main()
