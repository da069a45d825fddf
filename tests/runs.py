"""Run the workflow in a test: a configuration, a folder, and what Snakemake says it will do."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("slide", "path", "annotation", "split", "mpp", "patient", "site", "stain", "group")


# tests that run side by side take one core each: two trainings with two threads each hinder one another
CORES = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2


def demo_settings(**changes):
    """The small networks and crops of the demo cohort, for a sheet of one's own."""
    return yaml.safe_load((ROOT / "config" / "presets" / "demo.yaml").read_text()) | changes


def write_sheet(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_sheet(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def snakemake(work, config, *arguments, root=ROOT, cores=CORES, timeout=None):
    """Run Snakemake in folder `work`, for `timeout` seconds at most; returns the finished process with its output as text."""
    work.mkdir(parents=True, exist_ok=True)
    target = work / "config.test.yaml"
    target.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--directory", str(work)]
    command += [*arguments, "--configfile", str(target)]
    return subprocess.run(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=timeout
    )


def planned(work, config, root=ROOT, targets=()):
    """What a dry run would do: rule -> number of jobs."""
    result = snakemake(work, config, *targets, "-n", root=root)
    assert result.returncode == 0, result.stdout[-3000:]
    table = re.search(r"Job stats:\n.*?-\n(.*?)\ntotal", result.stdout, re.S)
    if table is None:
        assert "Nothing to be done" in result.stdout
        return {}
    jobs = dict(re.findall(r"^(\w+)\s+(\d+)$", table[1], re.M))
    return {rule: int(count) for rule, count in jobs.items() if rule not in ("all", *targets)}
