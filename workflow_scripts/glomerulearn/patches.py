"""Cut a slide's tissue into patches at one resolution and keep them in one file; read any window back.

Patches lie on a grid without overlap. Grid and windows are counted in store pixels: pixels of the whole slide resampled
to the store's `mpp`, origin at the slide's top-left corner. A window at any offset is put together from the patches
it touches, so nothing is stored twice and training may sample anywhere.
"""

import hashlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from glomerulearn import stores, tissue
from glomerulearn.annotations import Outline, rasterise, read_outlines
from glomerulearn.errors import InputError
from glomerulearn.slides import DamagedRegion, Slide, open_slide

log = logging.getLogger(__name__)

WHITE = 255


def tile_slide(
    slide: str,
    path: str | Path,
    annotation: str | Path | None,
    mpp: float | None,
    settings: Mapping,
    classes: Mapping[str, str],
    target: str | Path,
    progress=iter,
) -> dict:
    """Write the patch store of one slide to `target` and return its QC row.

    settings: `mpp` (um per pixel of the store), `patch_size_px`, `min_tissue` (share of a patch),
    `max_damaged` (share of the patches that may be unreadable).
    A slide that cannot be used gets an empty store and a QC row with `status` failed and the reason, so that the
    other slides go on.
    """
    started = time.perf_counter()
    labels = sorted(set(classes.values()))
    facts = {"slide": slide, "source": Path(path).name, "annotated": annotation is not None, "classes": labels}
    try:
        # outlines before pixels: a wrong outline file is known within a second
        outlines = read_outlines(annotation, classes) if annotation is not None else None
        with open_slide(path, mpp) as opened:
            facts |= _cut(opened, outlines, labels, settings, target, facts, progress)
    except InputError as error:
        log.error("slide %s cannot be used: %s", slide, error)
        facts |= {"status": "failed", "reason": str(error), "n_patches": 0}
        with stores.writing(target) as group:
            group.attrs.update(facts)
    return _qc_row(facts, time.perf_counter() - started)


def _cut(
    slide: Slide, outlines: Sequence[Outline] | None, labels, settings: Mapping, target, facts: Mapping, progress
) -> dict:
    size, mpp = settings["patch_size_px"], settings["mpp"]
    scale = mpp / slide.mpp
    width, height = slide.size_at(mpp)
    try:
        mask = tissue.tissue_mask(slide.thumbnail(tissue.MPP))
        tissue_area_mm2 = float(mask.sum() * tissue.MPP**2 / 1e6)
    except DamagedRegion:
        # one bad tile of the level that thumbnails come from must not cost the slide: look at every patch instead
        log.warning("%s: the overview cannot be read; every patch is searched for tissue", slide.path)
        mask, tissue_area_mm2 = None, None
    columns, rows = -(-width // size), -(-height // size)
    share = _share_per_cell(mask, columns, rows, size * mpp / tissue.MPP) if mask is not None else None
    outside = 0
    if outlines is not None:
        frame = (0, 0, slide.width_px, slide.height_px)
        outside = sum(not _inside(outline, frame) for outline in outlines)
        if outside:
            log.warning("%s: %d of %d outlines leave the slide", slide.path, outside, len(outlines))
        if outlines and outside == len(outlines):
            raise InputError(
                f"{slide.path}: all {outside} outlines lie outside the slide of {slide.width_px} x {slide.height_px} "
                "px; the annotation file belongs to another slide or is not in level-0 pixels"
            )
    reasons, wanted = Counter(), []
    for row in range(rows):
        for column in range(columns):
            drawn = None
            if outlines is not None:
                drawn = rasterise(outlines, labels, scale, column * size, row * size, (size, size))
            if share is None or share[row, column] >= settings["min_tissue"] or (drawn is not None and drawn.any()):
                wanted.append((column, row, drawn))
            else:
                reasons["no tissue" if share[row, column] == 0 else "little tissue"] += 1
    if not wanted:
        reasons["slide"] = "no tissue found"
    grid = np.array([(column, row) for column, row, _ in wanted], np.int64).reshape(-1, 2)
    ok = np.ones(len(wanted), bool)
    facts = dict(facts) | {
        "source_bytes": slide.path.stat().st_size,
        "source_digest": _head_digest(slide.path),
        "vendor": slide.vendor,
        "reader": "openslide",
        "width_px": slide.width_px,
        "height_px": slide.height_px,
        "mpp_level0": slide.mpp,
        "mpp_origin": slide.mpp_origin,
        "mpp": mpp,
        "patch_size": size,
        "patch_size_level0": size * scale,
        "overlap": 0,
        "canvas": [width, height],
        "tissue_area_mm2": tissue_area_mm2,
        "n_outlines": None if outlines is None else len(outlines),
        "n_outlines_outside": outside,
        "n_grid": rows * columns,
    }
    with stores.writing(target) as group:
        images = stores.add_images(group, "images", (len(wanted), size, size, 3))
        drawings = stores.add_images(group, "labels", (len(wanted), size, size)) if outlines is not None else None
        for index, (column, row, drawn) in enumerate(progress(wanted)):
            try:
                images[index] = slide.read(column * size * scale, row * size * scale, size, size, mpp)
            except DamagedRegion as error:
                log.warning("%s: patch at column %d, row %d cannot be read: %s", slide.path, column, row, error)
                ok[index] = False
                images[index] = np.full((size, size, 3), WHITE, np.uint8)
                reasons["damaged"] += 1
            if drawings is not None:
                drawings[index] = drawn
        damaged = float(np.mean(~ok)) if len(ok) else 0.0
        if damaged > settings["max_damaged"]:
            raise InputError(
                f"{slide.path}: {np.sum(~ok)} of {len(ok)} patches cannot be decoded, more than the share "
                f"`tiling: max_damaged: {settings['max_damaged']}`; copy the file again from the scanner"
            )
        stores.add_values(group, "grid", grid)
        stores.add_values(group, "coords", np.round(grid * size * scale).astype(np.int64))
        stores.add_values(
            group, "tissue", np.array([np.nan if share is None else share[r, c] for c, r, _ in wanted], np.float32)
        )
        stores.add_values(group, "ok", ok)
        status = {
            "status": "ok" if len(wanted) else "empty",
            "reason": reasons.pop("slide", ""),
            "n_patches": len(wanted),
            "n_damaged": int(np.sum(~ok)),
            "skipped": dict(reasons),
        }
        facts |= status
        group.attrs.update(facts)
    return facts


def _inside(outline: Outline, frame: tuple[int, int, int, int]) -> bool:
    left, top, right, bottom = outline.polygon.bounds
    # a pixel of slack: QuPath's outlines run along pixel borders
    return left >= frame[0] - 1 and top >= frame[1] - 1 and right <= frame[2] + 1 and bottom <= frame[3] + 1


def _share_per_cell(mask: np.ndarray, columns: int, rows: int, cell: float) -> np.ndarray:
    """Share of tissue in each grid cell of `cell` (fractional) mask pixels: float (rows, columns)."""
    sums = cv2.integral(mask.astype(np.uint8))
    xs = np.clip(np.round(np.arange(columns + 1) * cell).astype(int), 0, mask.shape[1])
    ys = np.clip(np.round(np.arange(rows + 1) * cell).astype(int), 0, mask.shape[0])
    corners = sums[np.ix_(ys, xs)]
    return (corners[1:, 1:] - corners[:-1, 1:] - corners[1:, :-1] + corners[:-1, :-1]) / cell**2


def _head_digest(path: Path) -> str:
    # whole slides are gigabytes; size and first megabyte tell two files apart
    with path.open("rb") as file:
        return hashlib.sha256(file.read(1 << 20)).hexdigest()


QC_COLUMNS = (
    "slide", "status", "reason", "source", "vendor", "reader", "width_px", "height_px", "mpp_level0", "mpp_origin",
    "mpp", "tissue_area_mm2", "n_grid", "n_patches", "n_damaged", "skipped", "annotated", "n_outlines",
    "n_outlines_outside", "seconds",
)  # fmt: skip


def _qc_row(facts: Mapping, seconds: float) -> dict:
    row = {name: facts.get(name) for name in QC_COLUMNS}
    row["skipped"] = "; ".join(f"{reason}: {count}" for reason, count in (facts.get("skipped") or {}).items())
    return row | {"seconds": round(seconds, 2)}


class PatchStore(stores.StoreReader):
    """Read a patch store: `window(x, y, width, height)` anywhere, `canvas` = (width, height) in store pixels."""

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

    def window(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """uint8 (height, width, 3) at store pixel (x, y); white where the slide has no tissue or ends."""
        return self._assemble("images", x, y, np.full((height, width, 3), WHITE, np.uint8))

    def label_window(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """uint8 (height, width): 0 = background, 1 + i = `labels[i]`."""
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
        else:
            self._cache[key] = self.read(name, int(index))
            if len(self._cache) > self._cache_patches:
                self._cache.popitem(last=False)
        return self._cache[key]
