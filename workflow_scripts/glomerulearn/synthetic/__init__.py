"""A synthetic cohort of kidney biopsies: real file formats, tissue at real scale, and the truth about it.

Every number follows from the seed. A section is laid out in micrometres (needle cores, tubules, vessels,
glomeruli of four grades of sclerosis), as amounts of what two dyes bind to; Beer-Lambert turns these into the
colours of a laboratory. It is made to try the workflow out and to test it; it says nothing about patients.
"""

import csv
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import cv2
import numpy as np
from shapely.geometry import Polygon

from glomerulearn.synthetic.fields import noise, ramp
from glomerulearn.synthetic.optics import PALE_HE, PAS, photograph
from glomerulearn.synthetic.placement import Structure, patch_mask, place
from glomerulearn.synthetic.slide_file import write_outlines, write_svs
from glomerulearn.synthetic.structures import paint
from glomerulearn.synthetic.tissue import (
    Section,
    draw_nuclei,
    edge_along_cells,
    needle_cores,
    paint_tubules,
    tubule_labels,
)

__all__ = ["Recipe", "Truth", "make_cohort", "make_slide", "write_outlines", "write_svs"]

STAINS = {"lab_a": PAS, "lab_b": PALE_HE}
SHEET_COLUMNS = ("slide", "path", "annotation", "split", "mpp", "patient", "site", "stain", "group")


@dataclass(frozen=True)
class Recipe:
    """What a slide shall hold.

    width_px, height_px: size at level 0.
    mpp: um per pixel.
    site: the laboratory, `lab_a` (PAS, magenta) or `lab_b` (H&E: pink and blue, paler).
    glomeruli: how many are wanted; fewer are made where there is no room; 0 makes a piece of medulla.
    grade_shares: share of the glomeruli that has grade 0, 1, 2, 3 (any scale).
    cores: number of needle cores side by side.
    fibrosis: share of the tissue, about, that is scarred.
    cut_share: share of the glomeruli that the edge of the tissue may cut.
    """

    width_px: int
    height_px: int
    mpp: float = 1.0
    site: str = "lab_a"
    glomeruli: int = 20
    grade_shares: tuple[float, float, float, float] = (0.4, 0.2, 0.2, 0.2)
    cores: int = 1
    fibrosis: float = 0.15
    cut_share: float = 0.15


@dataclass(frozen=True)
class Truth:
    """What a slide holds.

    polygons: outlines of Bowman's capsule, level-0 pixels (x, y), pixel i covering [i, i + 1).
    grades: of each, 0 to 3.
    mask: the same as an image, uint8 (height, width): 0 = no glomerulus, 1 + grade in one.
    """

    polygons: list[Polygon]
    grades: list[int]
    mask: np.ndarray


def make_slide(path: str | Path, recipe: Recipe, seed: int = 0) -> Truth:
    """Make one slide and write it to `path` (.svs); the folder is made if needed.

    Raises: ValueError for a recipe that cannot be made; OSError when the file cannot be written.
    """
    _check(recipe)
    rng = np.random.default_rng([seed, recipe.width_px, recipe.height_px])
    section, truth = _section(recipe, rng)
    write_svs(path, photograph(section, STAINS[recipe.site], rng), recipe.mpp)
    return truth


def _check(recipe: Recipe) -> None:
    if recipe.site not in STAINS:
        raise ValueError(f"site {recipe.site!r} is unknown; known are {', '.join(STAINS)}")
    if min(recipe.width_px, recipe.height_px) < 128 or not 0.2 <= recipe.mpp <= 4 or recipe.cores < 1:
        raise ValueError(f"{recipe}: sides must be at least 128 px, mpp 0.2 to 4, and cores at least 1")
    if not 0 <= recipe.fibrosis <= 1 or not 0 <= recipe.cut_share <= 1:
        raise ValueError(f"{recipe}: fibrosis and cut_share must be 0 to 1")
    if recipe.glomeruli < 0 or len(recipe.grade_shares) != 4 or sum(recipe.grade_shares) <= 0:
        raise ValueError(f"{recipe}: glomeruli must be 0 or more, and grade_shares four shares")


def _section(recipe: Recipe, rng: np.random.Generator) -> tuple[Section, Truth]:
    shape, mpp = (recipe.height_px, recipe.width_px), recipe.mpp
    medulla = recipe.glomeruli == 0
    depth_um = needle_cores(shape, mpp, recipe.cores, rng)
    labels, count = tubule_labels(shape, mpp, medulla, rng)
    tissue_mm2 = np.count_nonzero(depth_um > 0) * mpp**2 / 1e6
    vessels = round(tissue_mm2 * (1.5 if medulla else 2.5))
    grades = _grades(recipe.glomeruli, recipe.grade_shares, rng)
    structures = place(depth_um, mpp, grades, vessels, recipe.cut_share, rng)

    edge = depth_um.copy() if medulla else edge_along_cells(depth_um, labels, count)
    occupied = _make_way(structures, depth_um, edge, labels, count, mpp)
    # a field of variance 1 against its quantile: about that share is scarred
    threshold = NormalDist().inv_cdf(min(max(recipe.fibrosis, 0.001), 0.999))
    fibrosis = ramp(noise(shape, 420 / mpp, rng) + threshold, 1.2)
    section = Section(mpp, ramp(edge, 2 * mpp), *(np.zeros(shape, np.float32) for _ in range(4)))
    paint_tubules(section, labels, count + len(structures), occupied, fibrosis, medulla, rng)
    for structure in structures:
        paint(section, structure, rng)
    draw_nuclei(section, rng)

    glomeruli = [structure for structure in structures if structure.grade is not None]
    mask = np.zeros(shape, np.uint8)
    for glomerulus in glomeruli:
        left, top, inside = patch_mask(glomerulus.polygon, shape, 0)
        mask[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = 1 + glomerulus.grade
    return section, Truth([g.polygon for g in glomeruli], [g.grade for g in glomeruli], mask)


def _make_way(
    structures: Sequence[Structure],
    depth_um: np.ndarray,
    edge: np.ndarray,
    labels: np.ndarray,
    count: int,
    mpp: float,
) -> np.ndarray:
    """Give each structure a label among the tubules, and the tissue an edge that respects it, both in place.

    Returns: bool, where the structures and the fibres around them lie.
    """
    occupied = np.zeros(labels.shape, bool)
    for index, structure in enumerate(structures):
        left, top, inside = patch_mask(structure.polygon, labels.shape, int(40 / mpp))
        area = np.s_[top : top + inside.shape[0], left : left + inside.shape[1]]
        outside_um = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 5) * mpp
        near = outside_um < structure.halo_um
        labels[area][near] = count + index
        occupied[area] |= near
        # no part of it is torn off; where the core ends through it, the edge is the cut, not a tubule's
        beyond = near & ~inside & (depth_um[area] < 0)
        edge[area][inside] = np.maximum(edge[area][inside], 9)
        edge[area][beyond] = np.minimum(edge[area][beyond], -6)
    return occupied


def _grades(count: int, shares: Sequence[float], rng: np.random.Generator) -> list[int]:
    # quotas, not draws: a slide then has the mix its group stands for
    ideal = np.asarray(shares) / np.sum(shares) * count
    quota = np.floor(ideal).astype(int)
    for grade in np.argsort(quota - ideal, kind="stable")[: count - quota.sum()]:
        quota[grade] += 1
    return rng.permutation(np.repeat(np.arange(4), quota)).tolist()


@dataclass(frozen=True)
class _Patient:
    slide: str
    split: str
    group: str
    recipe: Recipe


_CONTROL, _DIABETES = (0.55, 0.2, 0.15, 0.1), (0.2, 0.25, 0.3, 0.25)
_LAB_A = Recipe(2600, 3300, 1.0, "lab_a", 22, _CONTROL, 3, 0.1)
_LAB_B = Recipe(2300, 2900, 1.3, "lab_b", 26, _CONTROL, 3, 0.1)


def _patient(slide: str, split: str, group: str, base: Recipe, **changes) -> _Patient:
    sick = {"grade_shares": _DIABETES, "fibrosis": 0.32} if group == "diabetes" else {}
    return _Patient(slide, split, group, replace(base, **sick, **changes))


COHORT = (
    _patient("a01", "train", "control", _LAB_A),
    _patient("a02", "train", "diabetes", _LAB_A, width_px=2400, cores=2),
    _patient("a03", "val", "diabetes", _LAB_A, glomeruli=18),
    _patient("a04", "test", "control", _LAB_A, width_px=2800, height_px=3000),
    _patient("a05", "predict", "diabetes", _LAB_A, height_px=3500),
    _patient("b01", "train", "control", _LAB_B),
    _patient("b02", "train", "diabetes", _LAB_B, width_px=2200, height_px=3000),
    _patient("b03", "val", "control", _LAB_B, glomeruli=22, cores=2),
    _patient("b04", "test", "diabetes", _LAB_B, height_px=2700),
    _patient("b05", "predict", "control", _LAB_B, glomeruli=0, cores=2),
)


def make_cohort(folder: str | Path, seed: int = 0, jobs: int = 2) -> Path:
    """Make the demo cohort of ten slides in `folder` with `jobs` processes; returns the slide sheet.

    Writes slides/*.svs, outlines/*.geojson (train, val, test), truth/*.geojson (all slides) and slides.tsv,
    whose paths are relative to `folder`. The same seed gives the same pixels.

    Raises: OSError when the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [(folder, patient, seed * 1000 + number) for number, patient in enumerate(COHORT)]
    if jobs > 1:
        # spawned, not forked: a fork of a process in which OpenCV has threads hangs
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            rows = list(pool.map(_make_patient, *zip(*tasks, strict=True)))
    else:
        rows = [_make_patient(*task) for task in tasks]
    sheet, partial = folder / "slides.tsv", folder / ".slides.tsv.partial"
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, SHEET_COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, sheet)
    return sheet


def _make_patient(folder: Path, patient: _Patient, seed: int) -> dict[str, str]:
    name, recipe = patient.slide, patient.recipe
    truth = make_slide(folder / "slides" / f"{name}.svs", recipe, seed)
    outlines = list(zip(truth.polygons, truth.grades, strict=True))
    write_outlines(folder / "truth" / f"{name}.geojson", outlines, name)
    annotation = ""
    if patient.split != "predict":
        annotation = f"outlines/{name}.geojson"
        write_outlines(folder / annotation, outlines, name)
    return {
        "slide": name,
        "path": f"slides/{name}.svs",
        "annotation": annotation,
        "split": patient.split,
        "mpp": "",
        "patient": f"patient_{name}",
        "site": recipe.site,
        "stain": STAINS[recipe.site].name,
        "group": patient.group,
    }
