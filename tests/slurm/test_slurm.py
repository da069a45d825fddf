"""The workflow on a real SLURM, through the profile as it is shipped: one cohort, in spite of two killed jobs."""

import csv
import json
import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import runs
import yaml
from runs import ROOT
from safetensors.numpy import load_file

from glomerulearn import synthetic

CLUSTER = Path(__file__).with_name("cluster.sh")
PROFILE = ("--workflow-profile", str(ROOT / "profiles" / "slurm"))
# no accounting on this cluster, and no hurry to be spared
HERE = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2")
# of a node: a network that is trained with as many here and there comes out the same
CORES = 2
# far too little for any job at the first attempt
STARVED = ("--set-resources", "collect_qc:mem_mb=100*attempt**2")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A SLURM with two nodes of two cores, one with a make-believe GPU; its folder, where it keeps its record of jobs."""
    if os.geteuid() != 0:
        pytest.skip("SLURM is NOT TESTED: only root can start one")
    folder = tmp_path_factory.mktemp("cluster")
    started = subprocess.run(
        ["bash", str(CLUSTER), "start", str(folder), "2", "2", "16000", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "apt-get install" in started.stderr:
        pytest.skip(f"SLURM is NOT TESTED: {started.stderr}")
    assert started.returncode == 0, started.stderr
    yield folder
    subprocess.run(["bash", str(CLUSTER), "stop", str(folder)], check=True)


@pytest.fixture(scope="session")
def settings(tmp_path_factory):
    """A slide to train on, one to choose by and one to predict, and the smallest run from sheet to figures."""
    folder = tmp_path_factory.mktemp("slides")
    recipe = synthetic.Recipe(1600, 1200, mpp=1.0, glomeruli=14, grade_shares=(1, 1, 1, 1), cut_share=0)
    rows = []
    for seed, split in enumerate(("train", "val", "predict")):
        truth = synthetic.make_slide(folder / f"{split}.svs", recipe, seed)
        rows.append({"slide": split, "path": f"{split}.svs", "split": split})
        if split != "predict":
            outlines = list(zip(truth.polygons, truth.grades, strict=True))
            synthetic.write_outlines(folder / f"{split}.geojson", outlines, split)
            rows[-1]["annotation"] = f"{split}.geojson"
    chosen = runs.demo_settings(slides=str(runs.write_sheet(folder / "slides.tsv", rows)), gpu=0)
    chosen["segmentation"] |= {"segmenters": ["unet"], "epochs": 5, "windows_per_epoch": 96}
    chosen["segmentation"]["second_look"] |= {"epochs": 1, "windows_per_epoch": 32}
    chosen["embedding"]["extractors"] = ["morphology"]
    chosen["reduction"] = {"reducers": ["pca"], "pca": {"components": 3}}
    chosen["clustering"] = {"clusterers": ["kmeans"], "metrics": ["silhouette"], "k_range": [2, 3], "consensus": False}
    return chosen


@pytest.fixture(scope="session")
def local(settings, tmp_path_factory):
    work = tmp_path_factory.mktemp("local")
    result = runs.snakemake(work, settings, cores=CORES)
    assert result.returncode == 0, result.stdout[-3000:]
    return work


def cancel_one(work):
    """Kill the first job of a run that is seen running, as an operator might."""
    for _ in range(600):
        command = ["squeue", "--noheader", "--states", "RUNNING", "--format", "%i %Z"]
        running = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        for job in (line.split()[0] for line in running if line.endswith(f" {work}")):
            subprocess.run(["scancel", job], check=True)
            return job
        time.sleep(0.2)
    raise TimeoutError("no job ran within two minutes")


def recorded(cluster, work):
    """SLURM's own record of a run's jobs that have ended: number -> what each asked for, and how it ended."""
    lines = (cluster / "record").read_text().splitlines()
    rows = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]
    return {row["JobId"]: row for row in rows if row["WorkDir"] == str(work)}


def given_gpus(job):
    """GPUs that SLURM holds a job to have been given, which its record leaves out where there is no data base."""
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    found = re.search(r"TresPerJob=gres:gpu:(\d+)", shown)
    return int(found[1]) if found else 0


def submitted(output):
    """Number -> rule or group, as Snakemake says."""
    return dict(re.findall(r"submitted with SLURM jobid (\d+) \(log: \S+/slurm_logs/(?:rule|group)_([^/]+)/", output))


@pytest.fixture(scope="session")
def remote(cluster, settings, tmp_path_factory):
    """The same cohort on the cluster, where jobs on networks ask for a GPU: folder, submissions, the one cancelled, record."""
    work = tmp_path_factory.mktemp("remote")
    with ThreadPoolExecutor(1) as operator:
        cancelled = operator.submit(cancel_one, work)
        result = runs.snakemake(work, settings | {"gpu": 1}, *PROFILE, *HERE, *STARVED, cores=CORES, timeout=1200)
    assert result.returncode == 0, result.stdout[-6000:]
    assert "Done. Open in" in result.stdout
    return work, submitted(result.stdout), cancelled.result(), recorded(cluster, work)


def timeless(content):
    if isinstance(content, dict):
        return {key: timeless(value) for key, value in content.items() if key != "seconds"}
    return [timeless(value) for value in content] if isinstance(content, list) else content


def contents(work):
    """Every result as it is, but for the seconds that something took."""
    found = {}
    for path in sorted((work / "results").rglob("*.*")):
        name = str(path.relative_to(work / "results"))
        if name.startswith(("logs/", "benchmarks/")):
            continue
        if path.suffix == ".json":
            found[name] = timeless(json.loads(path.read_text()))
        elif path.suffix in (".csv", ".tsv"):
            with path.open(newline="") as file:
                found[name] = timeless(list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")))
        elif path.suffix == ".safetensors":  # its model card stands beside it, too
            found[name] = {key: value.tolist() for key, value in load_file(path).items()}
        else:
            found[name] = path.read_bytes()
    return found


def test_results_are_those_of_a_local_run(local, remote):
    here, there = contents(local), contents(remote[0])
    assert here.keys() == there.keys() and len(here) > 30
    assert [name for name in here if here[name] != there[name]] == []


def test_slurm_has_seen_every_job_and_chains_go_together(remote):
    work, names, _, record = remote
    assert names.keys() == record.keys()
    jobs = list((work / "results" / "logs").rglob("*.log"))
    killed = 2
    assert (len(jobs), len(names)) == (42, 19 + killed), names


def test_submissions_of_the_demo_cohort(tmp_path):
    """As many as docs/cluster.md says."""
    result = runs.snakemake(tmp_path, {}, *PROFILE, "-n")
    assert result.returncode == 0, result.stdout[-3000:]
    jobs = int(re.search(r"^total +(\d+)$", result.stdout, re.M)[1]) - 1  # `all` does nothing
    alone = len(re.findall(r"^(?:local)?rule \w+:$", result.stdout, re.M)) - 1
    groups = result.stdout.count("Group job ")
    assert (jobs, alone + groups) == (204, 48)
    assert "204 jobs in 48 submissions" in (ROOT / "docs" / "cluster.md").read_text()


def test_a_cancelled_job_comes_again_with_more_memory_and_time(remote):
    _, names, cancelled, record = remote
    first, second = [record[job] for job, name in names.items() if name == names[cancelled]]
    assert first["JobId"] == cancelled and names[cancelled].startswith("slides")
    assert (first["JobState"], second["JobState"]) == ("CANCELLED", "COMPLETED")
    assert "mem=2000M" in first["Tres"] and "mem=4000M" in second["Tres"]
    # members take turns, so that a group has the time of all of them: three slides, two files of outlines
    assert (first["TimeLimit"], second["TimeLimit"]) == (str(3 * 30 + 2 * 10), str(2 * (3 * 30 + 2 * 10)))


def test_a_job_killed_for_memory_comes_again(remote):
    _, names, _, record = remote
    attempts = [record[job] for job, name in names.items() if name == "collect_qc"]
    assert len(attempts) > 1 and attempts[-1]["JobState"] == "COMPLETED"
    assert all(attempt["JobState"] in ("OUT_OF_MEMORY", "FAILED", "CANCELLED") for attempt in attempts[:-1])
    assert "mem=100M" in attempts[0]["Tres"] and "mem=400M" in attempts[1]["Tres"]


def test_jobs_on_networks_are_given_a_gpu(remote):
    _, names, _, record = remote
    with_gpu = {job for job in names if given_gpus(job) == 1}
    assert {names[job].split("_")[0] for job in with_gpu} == {"train", "masks"}
    assert all(record[job]["NodeList"] == "n1" for job in with_gpu)


def test_without_a_gpu_they_run_all_the_same(cluster, local, settings):
    before = contents(local)
    outlines = local / "results" / "detections" / "best" / "predict.geojson"
    outlines.unlink()
    result = runs.snakemake(local, settings, "detection", *PROFILE, *HERE, cores=CORES, timeout=300)
    assert result.returncode == 0, result.stdout[-3000:]
    jobs = submitted(result.stdout)
    assert "masks_best_infer_masks" in jobs.values()
    assert all(recorded(cluster, local)[job]["JobState"] == "COMPLETED" and given_gpus(job) == 0 for job in jobs)
    assert before == contents(local)


def test_every_group_fits_a_day_at_its_last_attempt():
    """A group asks for the time of all its members; one above its partition's limit would wait for ever."""
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
    components = dict(entry.split("=") for entry in profile["group-components"])
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    minutes = {}
    for rule, group in profile["groups"].items():
        (time_asked,) = re.findall(rf"rule {rule}:.*?runtime=per_attempt\((\d+)\)", text, re.S)[:1]
        minutes[group] = minutes.get(group, 0) + int(time_asked)
    for group, total in minutes.items():
        assert total * int(components.get(group, 1)) * (1 + profile["retries"]) <= 24 * 60, group
