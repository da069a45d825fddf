"""The vectors of glomeruli, read back from the files of several slides."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np


class Embeddings:
    """The embeddings of several slides: `glomerulus`, `slide`, `label` (str), `cut` (bool), `vectors` (N, d), `weights`."""

    def __init__(self, paths: Sequence[Path]):
        files = [dict(np.load(path)) for path in paths]  # allow_pickle stays off
        self.facts = [json.loads(str(file["facts"])) for file in files]
        full = [i for i, file in enumerate(files) if len(file["glomerulus"])]
        self.weights: str = self.facts[0]["weights"] if files else ""
        self.glomerulus, self.label, self.cut = (
            np.concatenate([files[i][name] for i in full]) if full else np.zeros(0, kind)
            for name, kind in (("glomerulus", "U1"), ("label", "U1"), ("cut", bool))
        )
        self.slide = np.repeat([self.facts[i]["slide"] for i in full], [len(files[i]["glomerulus"]) for i in full])
        self.vectors = np.concatenate([files[i]["vectors"] for i in full]) if full else np.zeros((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self.glomerulus)
