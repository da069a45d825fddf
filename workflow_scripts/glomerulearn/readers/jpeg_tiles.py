"""Tiled JPEG TIFF slides (Aperio and most generic ones), decoded tile by tile, each tile once.

OpenSlide spends four fifths of its time on compositing tiles it has already decoded. Here a region is a copy of tiles
that libjpeg-turbo decodes, strictly: a tile with damaged bytes is an error, not a grey or garbled square.
"""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile

from glomerulearn import jpeg
from glomerulearn.errors import DamagedRegion
from glomerulearn.readers.openslide_reader import OpenSlideReader

VENDORS = ("aperio", "generic-tiff")  # one image, levels from its top-left corner, no overlap
_CACHE_BYTES = 24 << 20
_CHECKED_TILES = 3, 1  # of level 0, of each other level
_BLOCK_PX, _LEVEL_TOLERANCE = 16, 6.0  # reduced levels, which OpenSlide resamples: median difference of means of blocks
# Adobe's marker with transform 0: the components are red, green and blue, not YCbCr
_ADOBE_RGB = bytes.fromhex("FFEE000E41646F626500640000000000")


class NotNative(Exception):
    """This file is none for the native reader; the message says why."""


@dataclass
class _Level:
    width: int
    height: int
    tile_width: int
    tile_height: int
    columns: int
    offsets: np.ndarray  # int64, one per tile
    counts: np.ndarray
    head: bytes  # what goes before a tile's own bytes: markers and tables that its level shares


class JpegTileReader:
    """The native reader of a slide that OpenSlide opened and describes.

    Raises: NotNative when the file is no tiled JPEG TIFF or its pixels are not exactly OpenSlide's.
    """

    name = "native JPEG tiles"
    shrinks = (1, 2, 4, 8)

    def __init__(self, path: Path, reference: OpenSlideReader):
        if reference.vendor not in VENDORS:
            raise NotNative(f"vendor {reference.vendor}")
        self.path, self.vendor = path, reference.vendor
        self.stated_mpp, self.centre_nm, self.notes = reference.stated_mpp, reference.centre_nm, list(reference.notes)
        self.sizes, self.background = reference.sizes, reference.background
        self._levels = _levels(path, reference.sizes)
        self._file = os.open(path, os.O_RDONLY)
        self._cache: OrderedDict = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()
        self._threads = threading.local()
        try:
            self._check(reference)
        except NotNative:
            self.close()
            raise

    def region(self, level: int, x: int, y: int, width: int, height: int, shrink: int = 1) -> np.ndarray:
        facts = self._levels[level]
        tile_width, tile_height = facts.tile_width // shrink, facts.tile_height // shrink
        right, bottom = min(x + width, -(-facts.width // shrink)), min(y + height, -(-facts.height // shrink))
        left, top = max(x, 0), max(y, 0)
        canvas = np.empty((height, width, 3), np.uint8)
        if (left, top, right, bottom) != (x, y, x + width, y + height):
            canvas[:] = self.background
        if right <= left or bottom <= top:
            return canvas
        for row in range(top // tile_height, -(-bottom // tile_height)):
            above, below = max(row * tile_height, top), min((row + 1) * tile_height, bottom)
            for column in range(left // tile_width, -(-right // tile_width)):
                begin, end = max(column * tile_width, left), min((column + 1) * tile_width, right)
                target = canvas[above - y : below - y, begin - x : end - x]
                shared = target.shape[:2] != (tile_height, tile_width)
                tile = self._tile(level, row * facts.columns + column, shrink, shared)
                if tile is None:
                    target[:] = self.background
                else:
                    down, across = row * tile_height, column * tile_width
                    target[:] = tile[above - down : below - down, begin - across : end - across]
        return canvas

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _tile(self, level: int, index: int, shrink: int, shared: bool) -> np.ndarray | None:
        """One decoded tile, or None for one that was never scanned; valid until this thread's next.

        shared: other regions will want it, too, so it is kept for a while.
        """
        key = level, index, shrink
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        tile = self._decode(level, index, shrink)
        if tile is not None and shared:
            tile = tile.copy()
            with self._lock:
                if key not in self._cache:
                    self._cache[key] = tile
                    self._cached_bytes += tile.nbytes
                while self._cached_bytes > _CACHE_BYTES:
                    self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return tile

    def _decode(self, level: int, index: int, shrink: int) -> np.ndarray | None:
        facts = self._levels[level]
        offset, count = int(facts.offsets[index]), int(facts.counts[index])
        if offset == count == 0:
            return None  # how a sparse TIFF says that nothing was scanned here
        wanted = facts.tile_height // shrink, facts.tile_width // shrink, 3
        try:
            data = os.pread(self._file, count, offset)
            if len(data) < max(count, 4) or data[:2] != b"\xff\xd8":
                raise ValueError(f"{count} bytes that are no JPEG image")
            return jpeg.decode(facts.head + data[2:], self._scratch(wanted), shrink)
        except (ValueError, OSError) as error:
            row, column = divmod(index, facts.columns)
            raise DamagedRegion(
                f"{self.path}: level {level}, tile at column {column}, row {row} cannot be decoded ({error})"
            ) from error

    def _scratch(self, shape: tuple[int, int, int]) -> np.ndarray:
        """The same memory for every tile of a thread stays in the processor's cache, which saves a fifth of the time."""
        if getattr(self._threads, "shape", None) != shape:
            self._threads.shape, self._threads.buffer = shape, jpeg.buffer(shape)
        return self._threads.buffer

    def _check(self, reference: OpenSlideReader) -> None:
        """Compare random tiles of every level with OpenSlide: at level 0 every pixel must be the same."""
        rng = np.random.default_rng(0)
        for level, facts in enumerate(self._levels):
            # tissue needs more bytes than glass
            full = np.flatnonzero(facts.counts >= np.median(facts.counts))
            compared = alike = 0
            wanted = _CHECKED_TILES[min(level, 1)]
            for index in rng.permutation(full)[: 4 * wanted]:
                row, column = divmod(int(index), facts.columns)
                x, y = column * facts.tile_width, row * facts.tile_height
                size = min(facts.tile_width, facts.width - x), min(facts.tile_height, facts.height - y)
                try:
                    ours, theirs = self.region(level, x, y, *size), reference.region(level, x, y, *size)
                except DamagedRegion:
                    continue  # a damaged tile says nothing about the others
                if level == 0 and not np.array_equal(ours, theirs):
                    raise NotNative(f"pixels of level 0 at ({x}, {y}) are not OpenSlide's")
                compared += 1
                alike += _alike(ours, theirs)
                if compared == wanted:
                    break
            if not compared:
                raise NotNative(f"no tile of level {level} could be compared with OpenSlide's")
            if alike < compared / 2:
                raise NotNative(f"{compared - alike} of {compared} tiles of level {level} do not look like OpenSlide's")


def _alike(first: np.ndarray, second: np.ndarray) -> bool:
    size = max(1, first.shape[1] // _BLOCK_PX), max(1, first.shape[0] // _BLOCK_PX)
    coarse = [cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.int16) for image in (first, second)]
    # the median: where a tile of level 0 is missing, OpenSlide leaves a hole in every level
    return np.median(np.abs(coarse[0] - coarse[1])) <= _LEVEL_TOLERANCE


def _levels(path: Path, sizes: list[tuple[int, int]]) -> list[_Level]:
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in tiff.pages if page.is_tiled]
            levels = [_level(page) for page in pages if (page.imagewidth, page.imagelength) in sizes]
    except NotNative:
        raise
    except Exception as error:  # tifffile raises anything on what is no TIFF
        raise NotNative(f"no TIFF that tifffile reads ({error})") from error
    if [(level.width, level.height) for level in levels] != list(sizes):
        raise NotNative("its TIFF pages are not the levels that OpenSlide states")
    return levels


def _level(page: tifffile.TiffPage) -> _Level:
    photometric = page.photometric.name
    if page.compression != tifffile.COMPRESSION.JPEG or photometric not in ("RGB", "YCBCR"):
        raise NotNative(f"compression {page.compression.name}, colours {photometric}")
    if page.samplesperpixel != 3 or page.bitspersample != 8 or page.planarconfig != tifffile.PLANARCONFIG.CONTIG:
        raise NotNative(f"{page.samplesperpixel} samples of {page.bitspersample} bits")
    if page.tilewidth % 8 or page.tilelength % 8 or page.imagedepth != 1:
        raise NotNative(f"tiles of {page.tilewidth} x {page.tilelength} px")
    tables = page.jpegtables or b"\xff\xd8\xff\xd9"
    marker = _ADOBE_RGB if photometric == "RGB" else b""
    columns = -(-page.imagewidth // page.tilewidth)
    offsets, counts = np.array(page.dataoffsets, np.int64), np.array(page.databytecounts, np.int64)
    if len(offsets) != columns * -(-page.imagelength // page.tilelength) or len(counts) != len(offsets):
        raise NotNative(f"{len(offsets)} tiles listed, which do not cover the image")
    size = page.imagewidth, page.imagelength, page.tilewidth, page.tilelength
    return _Level(*size, columns, offsets, counts, tables[:2] + marker + tables[2:-2])
