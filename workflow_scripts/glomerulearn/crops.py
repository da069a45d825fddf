"""The crop store: all glomeruli of one slide as images of one size.

It holds `images` uint8 (N, h, w, 3), `masks` uint8 (N, h, w; 1 = glomerulus) and, in its attributes, the slide and one
record per crop: `glomerulus`, `cut` (reaches the slide's or the tissue's edge, or the field's).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from glomerulearn import stores


def write_crops(target: Path, slide: str, images, masks, records: Sequence[Mapping], settings: Mapping) -> None:
    """Write one crop store."""
    size = settings["size_px"]
    with stores.writing(target) as store:
        store.add_images("images", (len(records), size, size, 3))
        store.add_images("masks", (len(records), size, size))
        for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
            store.put("images", index, stores.encode(image, "zstd"))
            store.put("masks", index, stores.encode(mask.astype(np.uint8), "zstd"))
        store.group.attrs.update({"slide": slide, "crops": list(records), **settings})


class CropStore(stores.StoreReader):
    """All crops of one slide: `images`, `masks` (bool) and `records` (a table, one row per crop)."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.slide: str = self.attributes["slide"]
        self.records = pd.DataFrame(self.attributes["crops"], columns=["glomerulus", "cut"])

    def __len__(self) -> int:
        return len(self.records)

    @property
    def images(self) -> np.ndarray:
        return self._all("images", np.uint8)

    @property
    def masks(self) -> np.ndarray:
        return self._all("masks", np.uint8) > 0

    def _all(self, name: str, dtype) -> np.ndarray:
        shape = self.group[name].shape
        return np.stack([self.read(name, i) for i in range(len(self))]) if len(self) else np.zeros(shape, dtype)
