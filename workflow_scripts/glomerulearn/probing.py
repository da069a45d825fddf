"""What lies in the vectors: how far label and laboratory part them, and what a classifier could tell of either.

Linear probes (Alain, Bengio 2017), always judged on slides that they were not fitted to.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from glomerulearn.agreement import site_of
from glomerulearn.clusterers import silhouette
from glomerulearn.large_cohorts import to_fit_on
from glomerulearn.reduction import SCALERS
from glomerulearn.vectors import Embeddings

PROBE_COLUMNS = ("extractor", "of", "examples", "balanced_accuracy", "spread", "chance", "silhouette", "n", "weights")
_FOLDS = 5
_DRAWS = 20  # few-shot: how often the examples are drawn


def probe(
    extractor: str,
    paths: Sequence[Path],
    labels: Mapping[str, str],
    sites: Mapping[str, str],
    shots: Sequence[int],
    seed: int,
) -> pd.DataFrame:
    """Balanced accuracy of linear probes on the vectors of the reference slides, one row per question.

    Questions: the label with all labelled glomeruli of the other slides (`examples` = all) and with so few of each label
    (`shots`), and the laboratory. `spread`: standard deviation over folds, or over draws of the few. `chance` = 1 / classes.
    `silhouette` (where `examples` = all): how far glomeruli of one label, or laboratory, lie from those of the others in the
    embedding, with no classifier at all. A question without two answers on enough slides has no row; of very many
    glomeruli it is asked of those that `to_fit_on` draws.
    labels: glomerulus -> label, of those that have one; sites: slide -> site.
    """
    data = Embeddings(paths)
    label = np.array([labels.get(name, "") for name in data.glomerulus.tolist()], dtype=str)
    rows = []
    for of, answers in (("label", label), ("site", site_of(data.slide, sites))):
        known = to_fit_on(np.flatnonzero((answers != "") & (answers != "glomerulus") & ~data.cut), seed)
        x, y, slides = data.rows(known), answers[known], data.slide[known]
        if len(set(y)) < 2 or len(set(slides)) < 2:
            continue
        common = {"extractor": extractor, "of": of, "chance": 1 / len(set(y)), "n": len(y), "weights": data.weights}
        folds = list(GroupKFold(min(_FOLDS, len(set(slides)))).split(x, y, slides))
        scores = [_fit_and_score(x, y, fit, judge) for fit, judge in folds]
        apart = silhouette(SCALERS[data.scale]().fit_transform(x), np.unique(y, return_inverse=True)[1], seed)
        rows.append(common | {"examples": "all", "silhouette": apart, **_summary(scores)})
        for shot in shots if of == "label" else ():
            rng = np.random.default_rng(seed)
            few = [_fit_and_score(x, y, _draw(y, fit, shot, rng), judge) for _ in range(_DRAWS) for fit, judge in folds]
            rows.append(common | {"examples": shot, **_summary(np.reshape(few, (_DRAWS, -1)).mean(1))})
    return pd.DataFrame(rows, columns=list(PROBE_COLUMNS))


def _draw(y: np.ndarray, among: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    parts = [among[y[among] == name] for name in np.unique(y[among])]
    return np.concatenate([rng.permutation(part)[:count] for part in parts])


def _fit_and_score(x: np.ndarray, y: np.ndarray, fit: np.ndarray, judge: np.ndarray) -> float:
    if len(set(y[fit])) < 2:
        return float("nan")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000))
    predicted = model.fit(x[fit], y[fit]).predict(x[judge])
    # a fold of one class has no other to be balanced with: its recall counts
    return float(balanced_accuracy_score(y[judge], predicted))


def _summary(scores) -> dict:
    return {"balanced_accuracy": float(np.nanmean(scores)), "spread": float(np.nanstd(scores))}
