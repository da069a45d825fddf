"""The mask store: what a segmenter said of a whole slide."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glomerulearn import stores

_CHUNK_PX = 1024


def write_masks(target: Path, probability: np.ndarray, instances: np.ndarray, facts: Mapping) -> None:
    """Write `probability` uint8 and `instances` int32, both (height, width), and the attributes `facts`."""
    with stores.writing(target) as store:
        for name, values in (("probability", probability), ("instances", instances)):
            if values.size:
                chunks = tuple(min(_CHUNK_PX, side) for side in values.shape)
                store.group.create_array(name, data=values, chunks=chunks)
        store.group.attrs.update(facts)


class MaskStore(stores.StoreReader):
    """`probability` uint8 and `instances` int32, both (height, width) at `mpp`; sizes 0 for an unusable slide."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.slide: str = self.attributes["slide"]
        self.usable: bool = "probability" in self

    @property
    def probability(self) -> np.ndarray:
        return self.read("probability")

    @property
    def instances(self) -> np.ndarray:
        return self.read("instances")
