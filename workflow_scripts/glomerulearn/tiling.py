"""Cut a slide's tissue into patches at one resolution, and account for every part of the slide in its quality row."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from glomerulearn import stores, tissue
from glomerulearn.annotations.features import Frame
from glomerulearn.annotations.reading import read_annotation
from glomerulearn.errors import DamagedRegion, InputError
from glomerulearn.likeness import Likeness
from glomerulearn.outlines import Drawing, Outline, pack
from glomerulearn.quality import describe_outlines, describe_slide, quality_row
from glomerulearn.slides import Slide, open_slide

log = logging.getLogger(__name__)

WHITE = 255
# patches are cut in strips of this many columns, so that a tile that two patches share is still decoded when the second comes
_STRIP_COLUMNS = 8
_LISTED_PLACES = 20


def tile_slide(
    slide: str,
    path: str | Path,
    annotation: str | Path | None,
    mpp: float | None,
    settings: Mapping,
    outlines: Mapping,
    target: str | Path,
    threads: int = 1,
    progress=iter,
) -> dict:
    """Write the patch store of one slide to `target` and return its QC row.

    settings: `mpp` (um per pixel of the store), `patch_size_px`, `min_tissue` (share of a patch), `max_damaged` (share of
    the patches that may be unreadable), `codec` (of the stored images: `zstd` or `jpeg`).
    outlines: `classes` (class name -> label) and `label_images` (what their numbers are: `class` or `glomerulus`).
    A slide that cannot be used gets an empty store and a QC row with `status` failed and the reason, so that the
    other slides go on.
    """
    started = time.perf_counter()
    labels = sorted(set(outlines["classes"].values()))
    facts = {"slide": slide, "source": Path(path).name, "annotated": annotation is not None, "classes": labels}
    try:
        with open_slide(path, mpp) as opened:
            facts |= describe_slide(opened, settings)
            drawn = None
            if annotation is not None:
                # outlines before pixels: a wrong annotation file is known within a second
                frame = Frame(
                    (slide, Path(path).stem),
                    opened.width_px,
                    opened.height_px,
                    opened.reader.stated_mpp or opened.mpp,
                    opened.reader.centre_nm,
                )
                read = read_annotation(annotation, outlines["classes"], frame, outlines["label_images"])
                facts |= describe_outlines(annotation, read, opened.mpp)
                drawn = read.outlines
            _cut(opened, drawn, settings, target, facts, threads, progress)
    except InputError as error:
        log.error("slide %s cannot be used: %s", slide, error)
        facts |= {"status": "failed", "reason": str(error), "n_patches": 0}
        with stores.writing(target) as store:
            store.group.attrs.update(facts)
    return quality_row(facts, time.perf_counter() - started)


def _cut(
    slide: Slide, outlines: Sequence[Outline] | None, settings: Mapping, target, facts: dict, threads: int, progress
) -> None:
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
    drawing = Drawing(outlines, facts["classes"], scale) if outlines is not None else None
    wanted = share >= settings["min_tissue"]
    if drawing is not None:
        for column, row in _cells_under(outlines, size * scale, columns, rows):
            wanted[row, column] = wanted[row, column] or drawing.window(column * size, row * size, size, size).any()
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
        if drawing is not None:
            store.add_images("labels", (len(grid), size, size))
            store.add_values("outlines", pack(outlines))
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
            if drawing is not None:
                labels = drawing.window(*(int(side) for side in grid[index] * size), size, size)
                store.put("labels", index, stores.encode(labels, "zstd"))
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


def _cells_under(outlines: Sequence[Outline], size_px: float, columns: int, rows: int) -> set[tuple[int, int]]:
    """Grid cells (column, row) of `size_px` level-0 pixels that the boxes around the outlines touch."""
    cells = set()
    for outline in outlines:
        left, top, right, bottom = (int(side // size_px) for side in outline.polygon.bounds)
        cells.update(
            (column, row)
            for row in range(max(top, 0), min(bottom + 1, rows))
            for column in range(max(left, 0), min(right + 1, columns))
        )
    return cells


def _share_per_cell(mask: np.ndarray, columns: int, rows: int, cell: float) -> np.ndarray:
    """Share of tissue in each grid cell of `cell` (fractional) mask pixels: float (rows, columns)."""
    sums = cv2.integral(mask.astype(np.uint8))
    xs = np.clip(np.round(np.arange(columns + 1) * cell).astype(int), 0, mask.shape[1])
    ys = np.clip(np.round(np.arange(rows + 1) * cell).astype(int), 0, mask.shape[0])
    corners = sums[np.ix_(ys, xs)]
    return (corners[1:, 1:] - corners[:-1, 1:] - corners[1:, :-1] + corners[:-1, :-1]) / cell**2
