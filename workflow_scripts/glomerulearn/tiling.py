"""Cut a slide's tissue into patches at one resolution, and account for every part of the slide in its quality row."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from glomerulearn import stores, tissue
from glomerulearn.errors import DamagedRegion, InputError
from glomerulearn.likeness import Likeness
from glomerulearn.quality import describe_slide, slide_row
from glomerulearn.slides import Slide, open_slide

log = logging.getLogger(__name__)

WHITE = 255
# patches are cut in strips of this many columns, so that a tile that two patches share is still decoded when the second comes
_STRIP_COLUMNS = 8
_LISTED_PLACES = 20


def tile_slide(
    slide: str,
    path: str | Path,
    mpp: float | None,
    settings: Mapping,
    target: str | Path,
    threads: int = 1,
    progress=iter,
) -> dict:
    """Write the patch store of one slide to `target` and return its QC row.

    settings: `mpp` (um per pixel of the store), `patch_size_px`, `min_tissue` (share of a patch), `max_damaged` (share of
    the patches that may be unreadable), `codec` (of the stored images: `zstd` or `jpeg`).
    A slide that cannot be used gets an empty store and a QC row with `status` failed and the reason, so that the
    other slides go on.
    """
    started = time.perf_counter()
    facts = {"slide": slide, "source": Path(path).name}
    try:
        with open_slide(path, mpp) as opened:
            facts |= describe_slide(opened, settings)
            _cut(opened, settings, target, facts, threads, progress)
    except InputError as error:
        log.error("slide %s cannot be used: %s", slide, error)
        facts |= {"status": "failed", "reason": str(error), "n_patches": 0}
        with stores.writing(target) as store:
            store.group.attrs.update(facts)
    return slide_row(facts, time.perf_counter() - started)


def _cut(slide: Slide, settings: Mapping, target, facts: dict, threads: int, progress) -> None:
    """Write the patches; `facts` grows by what is found."""
    size, mpp, scale = settings["patch_size_px"], settings["mpp"], settings["mpp"] / slide.mpp
    columns, rows = (-(-side // size) for side in facts["canvas"])
    image, unreadable = slide.overview(tissue.MPP)
    mask = tissue.tissue_mask(image) & ~unreadable
    facts["tissue_area_mm2"] = round(float(mask.sum() * tissue.MPP**2 / 1e6), 4)
    # where the overview cannot be read, every patch is tried
    share = _share_per_cell(mask | unreadable, columns, rows, size * mpp / tissue.MPP)
    likeness = Likeness(slide, image, unreadable, settings)
    del image, mask, unreadable
    wanted = share >= settings["min_tissue"]
    facts["skipped"] = {
        reason: int(count)
        for reason, count in (
            ("no tissue", np.sum(~wanted & (share == 0))),
            ("little tissue", np.sum(~wanted & (share > 0))),
        )
        if count
    }
    grid = np.argwhere(wanted)[:, ::-1].astype(np.int64)  # (column, row), row by row
    facts |= {"n_grid": rows * columns, "n_patches": len(grid)}
    ok = np.ones(len(grid), bool)
    damaged = []
    with stores.writing(target) as store:
        store.add_images("images", (len(grid), size, size, 3), settings["codec"])
        white = stores.encode(np.full((size, size, 3), WHITE, np.uint8), settings["codec"])

        def reject(index: int, why: str) -> None:
            log.warning("patch at column %d, row %d %s", *grid[index], why)
            ok[index] = False
            damaged.append([round(float(place), 1) for place in grid[index] * size * scale])
            if len(damaged) > settings["max_damaged"] * len(grid):
                raise InputError(
                    f"{slide.path}: {len(damaged)} of {len(grid)} patches, or more, are damaged (the last {why}); that is "
                    f"above the share `tiling: max_damaged: {settings['max_damaged']}`. Copy the file again from the scanner"
                )

        def patch(index: int) -> tuple[int, bytes | DamagedRegion]:
            try:
                image = slide.read(*(grid[index] * size * scale), size, size, mpp)
                likeness.note(index, grid[index], image)
                return index, stores.encode(image, settings["codec"])
            except DamagedRegion as error:
                return index, error

        strips = np.lexsort((grid[:, 0], grid[:, 1], grid[:, 0] // _STRIP_COLUMNS))
        for index, encoded in _in_threads(patch, progress(strips.tolist()), threads):
            if isinstance(encoded, DamagedRegion):
                reject(index, f"cannot be read: {encoded}")
                encoded = white
            store.put("images", index, encoded)
        for index in likeness.garbled():
            reject(index, "does not look like the slide's overview: the file is damaged there")
        store.add_values("grid", grid)
        store.add_values("coords", np.round(grid * size * scale).astype(np.int64))
        store.add_values("tissue", share[grid[:, 1], grid[:, 0]].astype(np.float32))
        store.add_values("ok", ok)
        facts |= {
            "status": "ok" if len(grid) else "empty",
            "reason": "" if len(grid) else "no tissue found",
            "n_damaged": len(damaged),
            "damaged_at_px": damaged[:_LISTED_PLACES],
        }
        if damaged:
            facts["skipped"]["damaged"] = len(damaged)
        store.group.attrs.update(facts)


def _in_threads(work, items: Iterable, threads: int) -> Iterator:
    """`map(work, items)` in some threads, with few results waiting; one after the other where `threads` is 1."""
    if threads <= 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _share_per_cell(mask: np.ndarray, columns: int, rows: int, cell: float) -> np.ndarray:
    """Share of tissue in each grid cell of `cell` (fractional) mask pixels: float (rows, columns)."""
    sums = cv2.integral(mask.astype(np.uint8))
    xs = np.clip(np.round(np.arange(columns + 1) * cell).astype(int), 0, mask.shape[1])
    ys = np.clip(np.round(np.arange(rows + 1) * cell).astype(int), 0, mask.shape[0])
    corners = sums[np.ix_(ys, xs)]
    return (corners[1:, 1:] - corners[:-1, 1:] - corners[1:, :-1] + corners[:-1, :-1]) / cell**2
