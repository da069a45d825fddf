"""The patch store of a slide: read any window of it back.

Patches lie on a grid without overlap. Grid and windows are counted in store pixels: pixels of the whole slide resampled
to the store's `mpp`, origin at the slide's top-left corner. A window at any offset is put together from the patches
it touches, so nothing is stored twice and training may sample anywhere.

Arrays: `images` uint8 (N, h, w, 3), `labels` uint8 (N, h, w; where annotated), `grid` int64 (N, 2; column, row), `coords`
int64 (N, 2; x, y of the top-left corner in level-0 pixels), `tissue` float32 (N; share), `ok` bool (N; decoded), `outlines`
(GeoJSON text; where annotated). Attributes: what the slide is, how it was read, and what was left out.
"""

from collections import OrderedDict
from functools import cached_property
from pathlib import Path

import numpy as np

from glomerulearn import stores
from glomerulearn.outlines import Outline, unpack

WHITE = 255


class PatchStore(stores.StoreReader):
    """Read a patch store: `window(x, y, size)` anywhere, `canvas` = (width, height) in store pixels.

    `outlines`: the outlines of an annotated slide, in level-0 pixels.
    """

    def __init__(self, path: str | Path, cache_patches: int = 256):
        super().__init__(path)
        self.slide: str = self.attributes["slide"]
        self.usable: bool = self.attributes["status"] == "ok"
        self.labels: list[str] = self.attributes["classes"]
        self.annotated: bool = "labels" in self
        self._cache: OrderedDict = OrderedDict()
        self._cache_patches = cache_patches
        if not self.usable:
            self.grid, self.canvas, self._index = np.zeros((0, 2), np.int64), (0, 0), {}
            return
        self.mpp: float = self.attributes["mpp"]
        self.mpp_level0: float = self.attributes["mpp_level0"]
        self.patch_size: int = self.attributes["patch_size"]
        self.canvas: tuple[int, int] = tuple(self.attributes["canvas"])
        ok = self.read("ok")
        self.grid = self.read("grid")[ok]
        self._index = {tuple(cell): i for cell, i in zip(self.grid.tolist(), np.flatnonzero(ok), strict=True)}

    @property
    def scale(self) -> float:
        """Level-0 pixels per store pixel."""
        return self.mpp / self.mpp_level0

    @cached_property
    def outlines(self) -> list[Outline]:
        return unpack(self.read("outlines")) if "outlines" in self else []

    def window(self, x: int, y: int, width: int, height: int | None = None) -> np.ndarray:
        """uint8 (height, width, 3) at store pixel (x, y), square by default; white where is no tissue or no slide."""
        height = width if height is None else height
        return self._assemble("images", x, y, np.full((height, width, 3), WHITE, np.uint8))

    def label_window(self, x: int, y: int, width: int, height: int | None = None) -> np.ndarray:
        """uint8 (height, width): 0 = background, 1 + i = `labels[i]`."""
        height = width if height is None else height
        return self._assemble("labels", x, y, np.zeros((height, width), np.uint8))

    def _assemble(self, name: str, x: int, y: int, canvas: np.ndarray) -> np.ndarray:
        height, width = canvas.shape[:2]
        size = self.patch_size
        for row in range(y // size, (y + height - 1) // size + 1):
            for column in range(x // size, (x + width - 1) // size + 1):
                index = self._index.get((column, row))
                if index is None:
                    continue
                left, top = column * size - x, row * size - y
                target = slice(max(top, 0), min(top + size, height)), slice(max(left, 0), min(left + size, width))
                patch = self._patch(name, index)
                canvas[target] = patch[
                    target[0].start - top : target[0].stop - top, target[1].start - left : target[1].stop - left
                ]
        return canvas

    def _patch(self, name: str, index: int) -> np.ndarray:
        key = name, index
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        patch = self._cache[key] = self.read(name, int(index))
        if len(self._cache) > self._cache_patches:
            self._cache.popitem(last=False)
        return patch
