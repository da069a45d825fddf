"""What the variants say together: a space in which two glomeruli are as far apart as variants disagree on them.

K-means in it is the consensus of Topchy, Jain, Punch 2003 (clusters as categories, as many attributes as variants). Each
variant weighs its merit, and only those with at least half the best's are heard: many poor ones do not outvote a few good.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulearn.choice import with_merit

log = logging.getLogger(__name__)

SPACE = ("consensus", "variants")  # its place among (extractor, reducer)
_HEARD = 0.5


def heard(variants: pd.DataFrame) -> list[dict]:
    """The variants that take part, the best first: `extractor`, `reducer`, `method`, `k`, `weight` (their sum is 1).

    variants: the table of all variants. Those of random weights are not heard, unless there are no others.
    """
    table = with_merit(variants).fillna({"merit": 0})
    honest = table[table["weights"] != "random"]
    table = (table if honest.empty else honest).sort_values("merit", ascending=False, kind="stable")
    table = table[table["merit"] >= _HEARD * table["merit"].max()]
    weights = table["merit"] if table["merit"].sum() > 0 else table["merit"] + 1
    table = table.assign(weight=weights / weights.sum())
    return table[["extractor", "reducer", "method", "k", "weight"]].to_dict("records")


def disagreement_space(voices: Sequence[Mapping], labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Points float32 (n, sum of all k); the square of a distance is the weighted share of variants that part two glomeruli.

    voices: as `heard`; labels: `{extractor}_{reducer}_{method}` -> clusters int (n,) of every variant that is heard.
    """
    parts = []
    for voice in voices:
        own = labels[f"{voice['extractor']}_{voice['reducer']}_{voice['method']}"]
        parts.append((np.arange(voice["k"]) == own[:, None]) * np.sqrt(voice["weight"] / 2))
    return np.concatenate(parts, axis=1).astype(np.float32)


def find_consensus(
    tables: Sequence[Path], coordinates: Mapping, fits: Mapping, voices_file: Path, target: Path
) -> None:
    """Write which variants are heard (JSON), and the space of their disagreement, as `reduce_embeddings` writes a reduction.

    tables: of variants, one per space; coordinates, fits: (extractor, reducer) -> files. `vectors` are the embedding of the
    best variant, so that the consensus is judged and drawn there like any other variant. `k_range`: only the number of clusters
    that most of the weight is for is tried, since metrics take the few corners of this space for as many clusters.
    """
    voices = heard(pd.concat([pd.read_csv(path, sep="\t") for path in tables], ignore_index=True))
    labels = {}
    for extractor, reducer, method in ((voice["extractor"], voice["reducer"], voice["method"]) for voice in voices):
        labels[f"{extractor}_{reducer}_{method}"] = np.load(fits[extractor, reducer])[f"labels_{method}"]
    best = dict(np.load(coordinates[voices[0]["extractor"], voices[0]["reducer"]]))
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    k = pd.DataFrame(voices).groupby("k")["weight"].sum().idxmax()
    np.savez(target, **best | {"coordinates": disagreement_space(voices, labels), "k_range": [k, k]})
    Path(voices_file).write_text(json.dumps(voices, indent=2) + "\n")
    log.info("consensus of %d variants", len(voices))
