"""From the chosen variant's clusters to grades: more sclerosis from grade to grade, and how far the pathologist agrees.

Labels have no part in the grades. They only score them, where slides have some.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import (
    adjusted_rand_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    normalized_mutual_info_score,
    roc_auc_score,
)

from glomerulearn.morphology import FEATURES, axis_scale, sclerosis_axis
from glomerulearn.vectors import Embeddings

log = logging.getLogger(__name__)

_RESAMPLES = 1000
SCORE_COLUMNS = (
    "of", "name", "n", "ari", "ari_low", "ari_high", "nmi", "kappa", "balanced_accuracy", "axis_auc", "axis_rho",
)  # fmt: skip


def order_grades(
    variants: pd.DataFrame, fits: Mapping[tuple[str, str], Path], morphology: Sequence[Path], target: Path
) -> None:
    """Number the clusters of the variant that was chosen without labels by how scarred their glomeruli are.

    variants: with column `chosen`; fits: (extractor, reducer) -> file; morphology: measures of the reference slides.
    target (JSON): `extractor`, `reducer`, `method`, `grades` (one per cluster, 0 = the least scarred), `axis` (mean of the
    sclerosis axis per grade) and `scale` (what the axis is measured with).
    """
    row = variants[variants["chosen"].fillna("").str.contains("without labels")].iloc[0]
    fit = dict(np.load(fits[row["extractor"], row["reducer"]]))
    labels = fit[f"labels_{row['method']}"]
    measured = Embeddings(morphology)
    place = {name: index for index, name in enumerate(measured.glomerulus.tolist())}
    rows = [place[name] for name in fit["glomerulus"].tolist()]
    scale = axis_scale(measured.vectors[rows])
    axis = sclerosis_axis(measured.vectors[rows], scale)
    means = np.array([axis[labels == cluster].mean() for cluster in range(labels.max() + 1)])
    grades = np.argsort(np.argsort(means))
    facts = {key: row[key] for key in ("extractor", "reducer", "method")}
    facts |= {"grades": grades.tolist(), "axis": np.sort(means).round(4).tolist(), "scale": scale}
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text(json.dumps(facts, indent=2) + "\n")
    log.info("grades are the clusters of %s_%s_%s", row["extractor"], row["reducer"], row["method"])


def add_grades(glomeruli: pd.DataFrame, morphology: Sequence[Path], grades: Mapping) -> pd.DataFrame:
    """Add the measures of `morphology`, `sclerosis_axis` and `grade` (empty where a glomerulus has no crop) to the table."""
    measured = Embeddings(morphology)
    axis = sclerosis_axis(measured.vectors, grades["scale"]) if len(measured) else np.zeros(0)
    measures = pd.DataFrame(measured.vectors.reshape(-1, len(FEATURES)), measured.glomerulus, FEATURES).round(4)
    # some of its shape is known from the slide, where it was measured in micrometres
    table = glomeruli.join(measures.drop(columns=glomeruli.columns.intersection(FEATURES)), on="glomerulus")
    table["sclerosis_axis"] = table["glomerulus"].map(
        dict(zip(measured.glomerulus.tolist(), axis.round(4), strict=True))
    )
    clusters = table["_".join(grades[key] for key in ("extractor", "reducer", "method"))]
    table["grade"] = clusters.map(dict(enumerate(grades["grades"])))
    return table.convert_dtypes()


def score_grades(glomeruli: pd.DataFrame, sites: Mapping[str, str], order: Sequence[str]) -> pd.DataFrame:
    """Agreement of the grades with the labels: over all glomeruli, and of every label's site and slide.

    glomeruli: with `slide`, `label`, `grade`, `sclerosis_axis`, `cut`; only whole, graded and labelled ones count.
    order: labels from the least to the most scarred; those not in it follow by name. ARI has a 95 % interval from
    resampled slides. `kappa` (quadratic weights) and `balanced_accuracy` need as many grades as labels; `axis_auc` two
    labels; `axis_rho` is Spearman's rank correlation of axis and label.
    """
    table = labelled(glomeruli)
    table["site"] = table["slide"].map(sites).fillna("")
    names = label_order(table["label"], order)
    grades = int(table["grade"].max()) + 1 if len(table) else 0
    rows = [{"of": "all", "name": "", **_agreement(table, names, grades)}]
    for kind in ("site", "slide"):
        for name, part in table[table[kind] != ""].groupby(kind):
            rows.append({"of": kind, "name": name, **_agreement(part, names, grades)})
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def confusion(glomeruli: pd.DataFrame, sites: Mapping[str, str]) -> pd.DataFrame:
    """How many glomeruli of each site and label have each grade: columns `site`, `label`, `grade`, `n`."""
    table = labelled(glomeruli)
    table["site"] = table["slide"].map(sites).fillna("")
    return table.groupby(["site", "label", "grade"], as_index=False).size().rename(columns={"size": "n"})


def shares(glomeruli: pd.DataFrame, groups: Mapping[str, str]) -> pd.DataFrame:
    """Share of every grade among the whole glomeruli of each group (a slide, a patient), with Wilson's 95 % interval.

    groups: slide -> name of its group ("" = none). Columns: `group`, `n`, and for each grade g `n_g`, `share_g`, `low_g`,
    `high_g`. Glomeruli of one slide are not independent: the interval is that of counting, not of sampling.
    """
    table = _whole(glomeruli)
    table["group"] = table["slide"].map(groups).fillna("")
    table = table[table["group"] != ""]
    grades = range(int(glomeruli["grade"].max()) + 1) if glomeruli["grade"].notna().any() else ()
    rows = []
    for name, part in table.groupby("group"):
        row = {"group": name, "n": len(part)}
        for grade in grades:
            count = int((part["grade"] == grade).sum())
            interval = stats.binomtest(count, len(part)).proportion_ci(method="wilson")
            row |= {f"n_{grade}": count, f"share_{grade}": count / len(part)}
            row |= {f"low_{grade}": interval.low, f"high_{grade}": interval.high}
        rows.append(row)
    columns = [f"{kind}_{grade}" for grade in grades for kind in ("n", "share", "low", "high")]
    return pd.DataFrame(rows, columns=["group", "n", *columns])


def label_order(labels: pd.Series, order: Sequence[str]) -> list[str]:
    """The labels that occur, from the least to the most scarred."""
    found = sorted(set(labels))
    return [*(name for name in order if name in found), *(name for name in found if name not in order)]


def labelled(glomeruli: pd.DataFrame) -> pd.DataFrame:
    """The whole, graded glomeruli whose label says more than that they are glomeruli."""
    table = _whole(glomeruli)
    return table[table["label"].notna() & ~table["label"].isin(["", "glomerulus"])].copy()


def _whole(glomeruli: pd.DataFrame) -> pd.DataFrame:
    return glomeruli[glomeruli["grade"].notna() & ~glomeruli["cut"].fillna(False).astype(bool)].copy()


def _agreement(table: pd.DataFrame, names: Sequence[str], grades: int) -> dict:
    if not len(table):
        return {"n": 0}
    truth = table["label"].map({name: rank for rank, name in enumerate(names)}).to_numpy(int)
    grade, axis = table["grade"].to_numpy(int), table["sclerosis_axis"].to_numpy(float)
    found = {"n": len(table)}
    if len(set(truth)) < 2:
        return found
    found |= {"ari": adjusted_rand_score(truth, grade), "nmi": normalized_mutual_info_score(truth, grade)}
    found["ari_low"], found["ari_high"] = _interval(table["slide"].to_numpy(), truth, grade)
    if grades == len(names):
        found["kappa"] = cohen_kappa_score(truth, grade, weights="quadratic", labels=range(grades))
        found["balanced_accuracy"] = balanced_accuracy_score(truth, grade)
    if len(names) == 2:
        found["axis_auc"] = roc_auc_score(truth, axis)
    found["axis_rho"] = stats.spearmanr(truth, axis).statistic
    return found


def _interval(slides: np.ndarray, truth: np.ndarray, grade: np.ndarray) -> tuple[float, float]:
    names = np.unique(slides)
    if len(names) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    members = {name: np.flatnonzero(slides == name) for name in names}
    scores = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([members[name] for name in rng.choice(names, len(names))])
        scores.append(adjusted_rand_score(truth[drawn], grade[drawn]))
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)
