"""The vectors of a slide's glomeruli on disk, and read back from the files of several slides."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd


def write_vectors(
    target: Path, slide: str, records: pd.DataFrame, vectors: np.ndarray, facts: Mapping[str, str]
) -> None:
    """Write one vector per crop of a slide (`.npz`: glomerulus, vectors float32 (N, d), cut, facts).

    records: of the crop store; facts: `extractor`, `weights` (where they come from, in words) and `scale` (see `Embeddings`).
    """
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        target,
        glomerulus=records["glomerulus"].to_numpy(str),
        vectors=vectors,
        cut=records["cut"].to_numpy(bool),
        facts=json.dumps({"slide": slide, **facts}),
    )


class Embeddings:
    """The embeddings of several slides: `glomerulus`, `slide` (str), `cut` (bool), `vectors` (N, d), `weights`.

    `scale`: `kept` (features differ in spread as they do) or `standard` (each is to be brought to variance 1).
    """

    def __init__(self, paths: Sequence[Path]):
        files = [dict(np.load(path)) for path in paths]  # allow_pickle stays off
        self.facts = [json.loads(str(file["facts"])) for file in files]
        full = [i for i, file in enumerate(files) if len(file["glomerulus"])]
        self.weights: str = self.facts[0]["weights"] if files else ""
        self.scale: str = self.facts[0]["scale"] if files else "kept"
        self.glomerulus, self.cut = (
            np.concatenate([files[i][name] for i in full]) if full else np.zeros(0, kind)
            for name, kind in (("glomerulus", "U1"), ("cut", bool))
        )
        self.slide = np.repeat([self.facts[i]["slide"] for i in full], [len(files[i]["glomerulus"]) for i in full])
        self.vectors = np.concatenate([files[i]["vectors"] for i in full]) if full else np.zeros((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self.glomerulus)
