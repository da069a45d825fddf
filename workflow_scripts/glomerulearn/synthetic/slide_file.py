"""Write a slide as scanners do (a tiled JPEG pyramid with an Aperio header) and outlines as QuPath does."""

import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import tifffile
from shapely.geometry import Polygon

from glomerulearn.outlines import collection, feature

TILE_PX = 256
DOWNSAMPLES = (1, 4, 16)
JPEG_QUALITY = 85
GRADE_COLOURS = ((90, 180, 90), (230, 200, 60), (235, 130, 50), (200, 50, 60))


def write_svs(path: str | Path, image: np.ndarray, mpp: float) -> None:
    """Write `image`, uint8 (rows, columns, 3) RGB at `mpp`, as a pyramid that OpenSlide takes for Aperio's.

    Raises: OSError when the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    height, width = image.shape[:2]
    with tifffile.TiffWriter(partial) as tiff:
        for downsample in DOWNSAMPLES:
            size = (max(1, width // downsample), max(1, height // downsample))
            level = image if downsample == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            scaled = "" if downsample == 1 else f" -> {size[0]}x{size[1]}"
            tiff.write(
                _tiles(level),
                shape=level.shape,
                dtype=level.dtype,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": JPEG_QUALITY},
                subfiletype=int(downsample > 1),
                description=(
                    f"Aperio Image Library v12.0.0\r\n{width}x{height} [0,0 {width}x{height}]{scaled} "
                    f"({TILE_PX}x{TILE_PX}) JPEG/RGB Q={JPEG_QUALITY}|AppMag = {10 / mpp:.0f}|MPP = {mpp:.4f}"
                ),
                metadata=None,
                software=False,
                datetime=None,
            )
    os.replace(partial, path)


def _tiles(level: np.ndarray) -> Iterator[np.ndarray]:
    # repeat the edge: black padding would ring into the last rows and columns
    rows, columns = (-n % TILE_PX for n in level.shape[:2])
    padded = np.pad(level, ((0, rows), (0, columns), (0, 0)), mode="edge")
    for top in range(0, padded.shape[0], TILE_PX):
        for left in range(0, padded.shape[1], TILE_PX):
            yield np.ascontiguousarray(padded[top : top + TILE_PX, left : left + TILE_PX])


def write_outlines(path: str | Path, outlines: Sequence[tuple[Polygon, int]], name: str) -> None:
    """Write (polygon in level-0 px, grade 0 to 3) pairs as QuPath's GeoJSON; ids follow from `name`.

    Raises: OSError when the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    features = [
        feature(
            polygon, f"Grade {grade}", GRADE_COLOURS[grade], id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{index}"))
        )
        for index, (polygon, grade) in enumerate(outlines)
    ]
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(collection(features))
    os.replace(partial, path)
