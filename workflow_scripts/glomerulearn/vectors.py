"""The vectors of a slide's glomeruli on disk, and read back from the files of several slides."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
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
    Vectors are read when they are asked for; `rows` holds no more of them in memory than it returns, and a slide's.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = list(paths)
        names, cuts, self.facts = [], [], []
        for path in self.paths:
            with np.load(path) as file:  # allow_pickle stays off
                names.append(file["glomerulus"])
                cuts.append(file["cut"])
                self.facts.append(json.loads(str(file["facts"])))
        self.counts = np.array([len(each) for each in names], int)
        full = np.flatnonzero(self.counts)
        self.weights: str = self.facts[0]["weights"] if self.facts else ""
        self.scale: str = self.facts[0]["scale"] if self.facts else "kept"
        self.glomerulus, self.cut = (
            np.concatenate([parts[i] for i in full]) if len(full) else np.zeros(0, kind)
            for parts, kind in ((names, "U1"), (cuts, bool))
        )
        self.slide = np.repeat([facts["slide"] for facts in self.facts], self.counts)

    @cached_property
    def vectors(self) -> np.ndarray:
        """All vectors: float32 (N, d)."""
        return self.rows(np.arange(len(self)))

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of some glomeruli, `rows` int (n,) ascending: float32 (n, d)."""
        ends = self.counts.cumsum()
        parts = np.split(rows, np.searchsorted(rows, ends))
        found = [
            _vectors(path, own - start)
            for path, start, own in zip(self.paths, ends - self.counts, parts[:-1], strict=True)
            if len(own)
        ]
        return np.concatenate(found) if found else np.zeros((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self.glomerulus)


def _vectors(path: Path, rows: np.ndarray) -> np.ndarray:
    with np.load(path) as file:
        return file["vectors"][rows]
