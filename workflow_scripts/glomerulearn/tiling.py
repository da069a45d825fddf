"""Cut a slide's tissue into patches at one resolution, and account for every part of the slide in its quality row."""

import hashlib
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
from glomerulearn.annotations.reading import Annotation, read_annotation
from glomerulearn.errors import DamagedRegion, InputError
from glomerulearn.outlines import Drawing, Outline, pack
from glomerulearn.slides import Slide, area_average, open_slide

log = logging.getLogger(__name__)

WHITE = 255
# patches are cut in strips of this many columns, so that a tile that two patches share is still decoded when the second comes
_STRIP_COLUMNS = 8
_LISTED_PLACES = 20
_LOOK_UM = 64.0  # patches and overview are compared as mosaics of about this
# outlines whose median diameter is outside are hardly of glomeruli in level-0 pixels
_USUAL_DIAMETER_UM = (40.0, 600.0)


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
            facts |= _describe(opened, settings)
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
                facts |= _describe_outlines(annotation, read, opened.mpp)
                drawn = read.outlines
            _cut(opened, drawn, settings, target, facts, threads, progress)
    except InputError as error:
        log.error("slide %s cannot be used: %s", slide, error)
        facts |= {"status": "failed", "reason": str(error), "n_patches": 0}
        with stores.writing(target) as store:
            store.group.attrs.update(facts)
    return _qc_row(facts, time.perf_counter() - started)


def _describe(slide: Slide, settings: Mapping) -> dict:
    size, scale = settings["patch_size_px"], settings["mpp"] / slide.mpp
    return {
        "source_bytes": slide.path.stat().st_size,
        "source_digest": _head_digest(slide.path),
        "vendor": slide.reader.vendor,
        "reader": slide.reader.name,
        "notes": "; ".join(slide.reader.notes),
        "width_px": slide.width_px,
        "height_px": slide.height_px,
        "mpp_level0": slide.mpp,
        "mpp_origin": slide.mpp_origin,
        "mpp": settings["mpp"],
        "patch_size": size,
        "patch_size_level0": size * scale,
        "overlap": 0,
        "codec": settings["codec"],
        "canvas": list(slide.size_at(settings["mpp"])),
        "config_digest": hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:16],
    }


def _describe_outlines(path: str | Path, annotation: Annotation, mpp: float) -> dict:
    diameters = [2 * np.sqrt(outline.polygon.area / np.pi) * mpp for outline in annotation.outlines]
    median = round(float(np.median(diameters)), 1) if diameters else None
    if median is not None and not _USUAL_DIAMETER_UM[0] <= median <= _USUAL_DIAMETER_UM[1]:
        log.warning(
            "%s: half of the outlines are less than %.4g um across, which is unusual for glomeruli; are they in level-0 "
            "pixels, and is the slide's mpp of %.4g right?",
            path,
            median,
            mpp,
        )
    return {
        "annotation_format": annotation.format,
        "n_outlines": len(annotation.outlines),
        "n_outlines_outside": annotation.outside,
        "outline_classes": annotation.classes,
        "outline_kinds": annotation.kinds,
        "outlines_left_out": annotation.left_out,
        "outline_diameter_um": median,
    }


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
    likeness = _Likeness(slide, image, unreadable, settings)
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


class _Likeness:
    """Finds patches that decode without a fault but into something else than the overview shows.

    A JPEG tile with a few wrong bytes often does. The overview tells when it comes from another level of the file, whose
    bytes are others. How well levels agree differs between scanners, so a patch must stand out among its own slide's.
    """

    def __init__(self, slide: Slide, overview: np.ndarray, unreadable: np.ndarray, settings: Mapping):
        self._differences: dict[int, float] = {}
        self._expected = None
        if slide.level_at(settings["mpp"]) == slide.level_at(tissue.MPP):
            return
        side_um = settings["patch_size_px"] * settings["mpp"]
        self._count = max(1, round(side_um / _LOOK_UM))
        step = side_um / self._count / tissue.MPP
        # parts of the mosaic that lie on the slide as a whole
        rows, columns = (
            int(side / tissue.MPP / step) for side in (slide.height_px * slide.mpp, slide.width_px * slide.mpp)
        )
        if rows and columns:
            self._expected = _mosaic(overview, step, rows, columns).astype(np.int16)
            self._known = np.ones((rows, columns), bool)
            if unreadable.any():
                hidden = np.repeat(unreadable[..., None].astype(np.uint8) * 255, 3, axis=2)
                self._known = _mosaic(hidden, step, rows, columns).max(axis=2) == 0

    def note(self, index: int, cell: np.ndarray, image: np.ndarray) -> None:
        """Compare the patch in grid cell (column, row)."""
        if self._expected is None:
            return
        left, top = cell * self._count
        here = slice(top, top + self._count), slice(left, left + self._count)
        expected, known = self._expected[here], self._known[here]
        # 16 x 16 pixels are enough for a mean
        every = max(1, len(image) // self._count // 16)
        found = cv2.resize(image[::every, ::every], (self._count, self._count), interpolation=cv2.INTER_AREA)
        difference = np.abs(found[: expected.shape[0], : expected.shape[1]] - expected).mean(axis=2)
        self._differences[index] = float(difference[known].max(initial=0))

    def garbled(self) -> list[int]:
        """Patches of which some part differs by more than 20 grey levels, and five times what is usual on the slide."""
        if not self._differences:
            return []
        limit = max(20.0, 5 * float(np.median(list(self._differences.values()))))
        return sorted(index for index, difference in self._differences.items() if difference > limit)


def _mosaic(image: np.ndarray, step: float, rows: int, columns: int, band: int = 64) -> np.ndarray:
    """Means of squares of `step` pixels, made in bands of rows so that no copy of the whole in floats is needed."""
    bands = []
    for row in range(0, rows, band):
        top = int(row * step)
        bottom = int(np.ceil((row + band) * step)) + 1
        here = (row * step - top, step, min(band, rows - row))
        bands.append(area_average(image[top:bottom], here, (0.0, step, columns)))
    return np.concatenate(bands)


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


def _head_digest(path: Path) -> str:
    # whole slides are gigabytes; size and first megabyte tell two files apart
    with path.open("rb") as file:
        return hashlib.sha256(file.read(1 << 20)).hexdigest()


QC_COLUMNS = (
    "slide", "status", "reason", "source", "vendor", "reader", "notes", "width_px", "height_px", "mpp_level0",
    "mpp_origin", "mpp", "tissue_area_mm2", "n_grid", "n_patches", "n_damaged", "damaged_at_px", "skipped", "annotated",
    "annotation_format", "n_outlines", "n_outlines_outside", "outline_classes", "outline_kinds", "outlines_left_out",
    "outline_diameter_um", "seconds",
)  # fmt: skip


def _qc_row(facts: Mapping, seconds: float) -> dict:
    row = {name: facts.get(name) for name in QC_COLUMNS}
    for name in ("skipped", "outline_classes", "outline_kinds", "outlines_left_out"):
        row[name] = "; ".join(f"{reason}: {count}" for reason, count in (facts.get(name) or {}).items())
    row["damaged_at_px"] = "; ".join(f"{x:.0f},{y:.0f}" for x, y in facts.get("damaged_at_px") or [])
    return row | {"seconds": round(seconds, 2)}
