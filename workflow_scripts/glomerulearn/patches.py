"""The patch store of a slide: read any window of it back.

Patches lie on a grid without overlap. Grid and windows are counted in store pixels: pixels of the whole slide resampled
to the store's `mpp`, origin at the slide's top-left corner. A window at any offset is put together from the patches
it touches, so nothing is stored twice and training may sample anywhere.

Arrays: `images` uint8 (N, h, w, 3), `grid` int64 (N, 2; column, row), `coords` int64 (N, 2; x, y of the top-left corner in
level-0 pixels), `tissue` float32 (N; share), `ok` bool (N; decoded). Attributes: what the slide is, how it was read, and what
was left out. The pathologist's outlines are a file of their own and drawn where they are asked for.
"""

from collections import OrderedDict
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from glomerulearn import slide_stain, stores
from glomerulearn.outlines import Drawing, Outline, SlideOutlines

WHITE = 255
_SAMPLED_PATCHES = 64  # for the slide's stain


class PatchStore(stores.StoreReader):
    """Read a patch store: `window(x, y, size)` anywhere, `canvas` = (width, height) in store pixels.

    truth: the file of the slide's outlines, if it has any; then `outlines` are those, in level-0 pixels, and `labels` theirs.
    normalise: whether windows have the stain that all slides share instead of their own.
    """

    def __init__(
        self, path: str | Path, truth: str | Path | None = None, cache_patches: int = 256, normalise: bool = False
    ):
        super().__init__(path)
        self._normalise = normalise
        self.slide: str = self.attributes["slide"]
        self.usable: bool = self.attributes["status"] == "ok"
        read = SlideOutlines(truth) if truth else None
        self.annotated: bool = read is not None and read.usable
        self.outlines: list[Outline] = read.outlines if read else []
        self._outlines_reason: str = (read.facts["outlines_reason"] if read else "") or "no outlines"
        self.labels: list[str] = read.labels if read else []
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
    def why_unscored(self) -> str:
        """Why a slide can be neither trained nor scored on, where it is not usable or not annotated."""
        return self._outlines_reason if self.usable else self.attributes["reason"]

    @property
    def scale(self) -> float:
        """Level-0 pixels per store pixel."""
        return self.mpp / self.mpp_level0

    @cached_property
    def _drawing(self) -> Drawing:
        return Drawing(self.outlines, self.labels, self.scale)

    @cached_property
    def density(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the tissue's optical density, from patches spread over the slide: float (3,) each."""
        rows = np.array(list(self._index.values()))
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLED_PATCHES)).astype(int)]
        return slide_stain.density(np.stack([self.read("images", int(row))[::4, ::4] for row in chosen]))

    @cached_property
    def _lookup(self) -> np.ndarray:
        return slide_stain.lookup(*self.density)

    def in_its_stain(self, image: np.ndarray) -> np.ndarray:
        """Pixels of the slide, uint8 (h, w, 3), in the stain that windows have."""
        return cv2.LUT(image, self._lookup) if self._normalise else image

    def window(self, x: int, y: int, width: int, height: int | None = None) -> np.ndarray:
        """uint8 (height, width, 3) at store pixel (x, y), square by default; white where is no tissue or no slide."""
        height = width if height is None else height
        return self._assemble("images", x, y, np.full((height, width, 3), WHITE, np.uint8))

    def label_window(self, x: int, y: int, width: int, height: int | None = None) -> np.ndarray:
        """uint8 (height, width): 0 = background, 1 + i = `labels[i]`; background where no patch is stored."""
        height = width if height is None else height
        return self._assemble("labels", x, y, np.zeros((height, width), np.uint8))

    def truth(self) -> np.ndarray:
        """All outlines of the slide, also where no patch is stored: uint8 (height, width) of the canvas, as `label_window`."""
        return self._drawing.window(0, 0, *self.canvas)

    @property
    def untiled(self) -> int:
        """How many outlined glomeruli have their middle where no patch is stored."""
        side = self.patch_size * self.scale
        middles = (outline.polygon.centroid for outline in self.outlines)
        return sum((int(middle.x // side), int(middle.y // side)) not in self._index for middle in middles)

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
                patch = self._patch(name, index, column, row)
                canvas[target] = patch[
                    target[0].start - top : target[0].stop - top, target[1].start - left : target[1].stop - left
                ]
        return canvas

    def _patch(self, name: str, index: int, column: int, row: int) -> np.ndarray:
        key = name, index
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        if name == "labels":
            size = self.patch_size
            patch = self._drawing.window(column * size, row * size, size, size)
        else:
            patch = self.in_its_stain(self.read(name, int(index)))
        self._cache[key] = patch
        if len(self._cache) > self._cache_patches:
            self._cache.popitem(last=False)
        return patch
