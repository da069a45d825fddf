"""How far groups of glomeruli agree with what is known of them: the laboratory, and the pathologist's label.

ARI: Hubert, Arabie 1985 (0 = as by chance, 1 = the same); NMI: normalised by the mean of both entropies.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score


def agreement(clusters: np.ndarray, truth: np.ndarray, of: str) -> dict[str, float]:
    """`ari_{of}` and `nmi_{of}` of clusters (n,) with `truth` (n,; "" = unknown) over the glomeruli where it is known."""
    known = truth != ""
    # against a single class every agreement is 0 or 1 by definition: nothing to report
    if len(set(truth[known])) < 2:
        return {f"ari_{of}": float("nan"), f"nmi_{of}": float("nan")}
    return {
        f"ari_{of}": float(adjusted_rand_score(truth[known], clusters[known])),
        f"nmi_{of}": float(normalized_mutual_info_score(truth[known], clusters[known])),
    }


def add_label_agreement(
    variants: pd.DataFrame, fits: Mapping[tuple[str, str], Path], labels: Mapping[str, str]
) -> pd.DataFrame:
    """Add `ari_label`, `nmi_label` and `n_labelled` to the table of variants, before the agreement with the site.

    fits: (extractor, reducer) -> file of clusters; labels: glomerulus -> label, of those that have one.
    """
    rows = []
    for (extractor, reducer), own in variants.groupby(["extractor", "reducer"], sort=False):
        fit = dict(np.load(fits[extractor, reducer]))
        truth = np.array([labels.get(name, "") for name in fit["glomerulus"].tolist()], dtype=str)
        counted = {"n_labelled": int((truth != "").sum())}
        for index, method in own["method"].items():
            rows.append({"index": index, **agreement(fit[f"labels_{method}"], truth, "label"), **counted})
    added = pd.DataFrame(rows).set_index("index")
    table = variants.join(added[["ari_label", "nmi_label", "n_labelled"]])
    before = variants.columns.get_loc("ari_site")
    return table[[*variants.columns[:before], *added.columns, *variants.columns[before:]]]


def site_of(slides: np.ndarray, sites: Mapping[str, str]) -> np.ndarray:
    """The site of each glomerulus' slide ("" = unknown)."""
    return np.array([sites.get(str(slide), "") for slide in slides], dtype=str)
