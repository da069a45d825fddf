"""One source of truth for versions: requirements.txt; every environment holds what its rules import."""

import ast
import csv
import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from glomerulearn.code_digest import reachable

# import name -> conda package, and conda package -> PyPI package where they differ
CONDA = {
    "cv2": "py-opencv", "torch": "pytorch", "sklearn": "scikit-learn", "skimage": "scikit-image", "PIL": "pillow",
    "yaml": "pyyaml", "umap": "umap-learn", "openTSNE": "opentsne", "openslide": "openslide-python",
    "segmentation_models_pytorch": "segmentation-models-pytorch", "sknetwork": "scikit-network",
    "pytorch_metric_learning": "pytorch-metric-learning",
}  # fmt: skip
PYPI = {"py-opencv": "opencv-python-headless", "pytorch": "torch", "openslide": "openslide-bin"}
PIP_ONLY = {"torchstain"}
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


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.stem)
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


@pytest.mark.parametrize(("script", "env"), sorted({(script, conda[1]) for _, script, conda, _ in rules()}))
def test_environment_provides_what_the_rule_imports(script, env):
    conda, pip = environment(ROOT / "envs" / f"{env}.yaml")
    scripts = ROOT / "workflow_scripts"
    for path in reachable(scripts / f"{script}.py", scripts / "glomerulearn"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in (each.split(".")[0] for each in names):
                if name not in sys.stdlib_module_names and name != "glomerulearn":
                    package = CONDA.get(name, name)
                    assert package in (pip if package in PIP_ONLY else conda), f"{path.name} imports {name}"


def test_direct_dependencies_are_locked():
    wanted = re.findall(r"^([\w-]+)", (ROOT / "requirements.in").read_text(), re.M)
    assert not [name for name in wanted if name.lower() not in LOCK]


def test_demo_sheet_is_the_cohort():
    from glomerulearn.synthetic import COHORT

    with (ROOT / "config" / "slides.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["slide"], row["split"], row["site"]) for row in rows] == [
        (patient.slide, patient.split, patient.recipe.site) for patient in COHORT
    ]
    assert all(Path(row["path"]) == Path("slides", f"{row['slide']}.svs") for row in rows)
