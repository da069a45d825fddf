"""What tiling costs against the JPEG decoder it cannot beat, and against other tools; all ratios from one run.

    python benchmarks/tiling.py WORK [--side 10240] [--large 40960] [--rounds 5] [--lazyslide PYTHON]

Makes JPEG SVS slides at 0.5 um/px in WORK (of one synthetic field of tissue, repeated) and prints, in CPU milliseconds per
512 px patch at 0.5 um/px, the median of some rounds:
  decode     the slide's own JPEG tiles, decoded and thrown away: the limit
  read       every patch through `open_slide`
  openslide  every patch through a plain OpenSlide loop
  tile zstd, tile jpeg   the whole of tiling: overview, tissue, patches, checks, store
  lazyslide  LazySlide's tissue, tiles and their pixels, nothing written, with --lazyslide PYTHON of an environment that has it
then random training windows from the stores against decoding the tiles under the same windows, and the peak memory of
tiling a slide of --side and one of --large pixels.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import openslide
import simplejpeg
import tifffile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from glomerulearn import jpeg, synthetic
from glomerulearn.patches import PatchStore
from glomerulearn.readers.jpeg_tiles import _levels
from glomerulearn.readers.openslide_reader import OpenSlideReader
from glomerulearn.slides import open_slide
from glomerulearn.tiling import tile_slide

MPP, PATCH_PX, TILE_PX, FIELD_PX = 0.5, 512, 256, 2048


def settings(codec: str, patch_px: int = PATCH_PX) -> dict:
    return {"mpp": MPP, "patch_size_px": patch_px, "min_tissue": 0.05, "max_damaged": 0.1, "codec": codec}


def make_slide(path: Path, side_px: int) -> Path:
    """A pyramid of `side_px` square whose every field is the same piece of synthetic tissue; its tiles are encoded once."""
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        recipe = synthetic.Recipe(FIELD_PX, FIELD_PX, mpp=MPP, glomeruli=12, cut_share=0)
        synthetic.make_slide(Path(folder, "field.svs"), recipe, seed=0)
        with open_slide(Path(folder, "field.svs")) as slide:
            field = slide.read(0, 0, FIELD_PX, FIELD_PX, MPP)
    partial = path.with_suffix(".partial")
    with tifffile.TiffWriter(partial, bigtiff=True) as tiff:
        for downsample in (1, 4, 16):
            size, own = side_px // downsample, FIELD_PX // downsample
            part = field.reshape(own, downsample, own, downsample, 3).mean((1, 3)).round().astype(np.uint8)
            part = np.tile(part, (max(1, TILE_PX // own),) * 2 + (1,))
            encoded = {
                (y, x): simplejpeg.encode_jpeg(
                    np.ascontiguousarray(part[y : y + TILE_PX, x : x + TILE_PX]), 85, "RGB", "420"
                )
                for y in range(0, len(part), TILE_PX)
                for x in range(0, len(part), TILE_PX)
            }
            places = range(0, size, TILE_PX)
            tiff.write(
                (encoded[y % len(part), x % len(part)] for y in places for x in places),
                shape=(size, size, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(downsample > 1),
                description=f"Aperio Image Library v12.0.0\r\n{side_px}x{side_px} JPEG/YCBCR Q=85|AppMag = 20|MPP = {MPP}",
                metadata=None,
                software=False,
            )
    partial.rename(path)
    return path


def cpu_ms(jobs: dict, count: int, rounds: int) -> dict[str, float]:
    """Median CPU milliseconds (all threads) per item of each job over some rounds.

    The jobs take turns, so that a processor that changes its speed changes it for all.
    """
    times = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            started = time.process_time()
            job()
            times[name].append((time.process_time() - started) * 1000 / count)
    return {name: float(np.median(values)) for name, values in times.items()}


def corners(side_px: int) -> list[tuple[int, int]]:
    return [(x, y) for y in range(0, side_px, PATCH_PX) for x in range(0, side_px, PATCH_PX)]


def decode_tiles(path: Path, tiles=None) -> None:
    """Decode the tiles of level 0 (all, or lists of them) into one buffer."""
    level = _levels(path, OpenSlideReader(path).sizes)[0]
    buffer = jpeg.buffer((TILE_PX, TILE_PX, 3))  # where the decoder is at its fastest
    with path.open("rb") as file:
        for index in range(len(level.offsets)) if tiles is None else (each for some in tiles for each in some):
            file.seek(int(level.offsets[index]))
            simplejpeg.decode_jpeg(level.head + file.read(int(level.counts[index]))[2:], buffer=buffer)


def read_patches(path: Path, places) -> None:
    with open_slide(path) as slide:
        for x, y in places:
            slide.read(x, y, PATCH_PX, PATCH_PX, MPP)


def read_openslide(path: Path, places) -> None:
    with openslide.OpenSlide(path) as slide:
        for x, y in places:
            np.asarray(slide.read_region((x, y), 0, (PATCH_PX, PATCH_PX)).convert("RGB"))


def new_store(work: Path) -> Path:
    """A name not used before: to replace a file costs what its old pages cost to free."""
    return work / f"{time.monotonic_ns()}.zarr.zip"


LAZYSLIDE = f"""
import sys, time
import lazyslide, numpy, wsidata

def read():
    slide = wsidata.open_wsi(sys.argv[1])
    lazyslide.pp.find_tissues(slide)
    lazyslide.pp.tile_tissues(slide, {PATCH_PX}, mpp={MPP})
    return sum(numpy.asarray(tile.image).size > 0 for tile in slide.iter.tile_images("tiles"))

read()
started = time.process_time()
count = read()
print((time.process_time() - started) * 1000 / count)
"""


def lazyslide_ms(python: str, path: Path) -> float:
    """CPU ms per patch of LazySlide, in its own environment: tissue, tiles, and their pixels; nothing is written."""
    result = subprocess.run([python, "-c", LAZYSLIDE, str(path)], check=True, capture_output=True, text=True)
    return float(result.stdout.split()[-1])


def windows(side_px: int, count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, side_px - PATCH_PX, (count, 2))


def window_figures(path: Path, store: Path, side_px: int, size: int, count: int = 300) -> tuple[float, float]:
    """CPU ms per random window: from the store (nothing kept between windows), and decoding the tiles under it."""
    places = windows(side_px, count)
    columns = -(-side_px // TILE_PX)
    tiles = [
        [
            row * columns + column
            for row in range(y // TILE_PX, (y + size - 1) // TILE_PX + 1)
            for column in range(x // TILE_PX, (x + size - 1) // TILE_PX + 1)
        ]
        for x, y in places
    ]
    reader = PatchStore(store, cache_patches=0)
    reader.window(0, 0, size)
    jobs = {
        "stored": lambda: [reader.window(int(x), int(y), size) for x, y in places],
        "decoded": lambda: decode_tiles(path, tiles),
    }
    return tuple(cpu_ms(jobs, count, 5).values())


def peak_mb(path: Path, target: Path) -> float:
    """Peak resident memory of a process that tiles a slide."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.path.insert(0, sys.argv[2]);"
        "from tiling import *; row = tile_slide('s', Path(sys.argv[3]), None, settings('jpeg'), sys.argv[4]);"
        # getrusage would count the parent's memory at the fork
        "assert row['status'] == 'ok', row; print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    command = [sys.executable, "-c", code, str(ROOT / "workflow_scripts"), str(Path(__file__).parent), str(path)]
    return float(subprocess.run([*command, str(target)], check=True, capture_output=True, text=True).stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--side", type=int, default=10240)
    parser.add_argument("--large", type=int, default=40960)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lazyslide", help="a Python that has LazySlide")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    path = make_slide(options.work / f"{options.side}.svs", options.side)
    places = corners(options.side)
    jobs = {
        "decode": lambda: decode_tiles(path),
        "read": lambda: read_patches(path, places),
        "openslide": lambda: read_openslide(path, places),
        "tile zstd": lambda: tile_slide("s", path, None, settings("zstd"), options.work / "zstd.zarr.zip"),
        "tile jpeg": lambda: tile_slide("s", path, None, settings("jpeg"), options.work / "jpeg.zarr.zip"),
    }
    figures = cpu_ms(jobs, len(places), options.rounds)
    if options.lazyslide:
        figures["lazyslide"] = lazyslide_ms(options.lazyslide, path)
    for store in options.work.glob("[0-9]*.zarr.zip"):
        store.unlink()
    print(f"{len(places)} patches of {PATCH_PX} px from {options.side} x {options.side} px, CPU ms per patch")
    for name, value in figures.items():
        print(f"  {name:10} {value:6.2f}   {value / figures['decode']:5.2f} x decode")
    print(f"  reading is {figures['openslide'] / figures['read']:.1f} x faster than the OpenSlide loop")
    print("random windows, CPU ms: from a store of 256 px patches, decoding the tiles on the fly, ratio")
    for codec in ("zstd", "jpeg"):
        store = options.work / f"{codec}_256.zarr.zip"
        tile_slide("s", path, None, settings(codec, 256), store)
        for size in (256, 512):
            stored, decoded = window_figures(path, store, options.side, size)
            print(f"  {codec} {size} px  {stored:6.2f} {decoded:6.2f} {stored / decoded:5.2f}")
    if options.large:
        large = make_slide(options.work / f"{options.large}.svs", options.large)
        small_mb, large_mb = (peak_mb(each, options.work / "peak.zarr.zip") for each in (path, large))
        print(
            f"peak memory {small_mb:.0f} MB, of the slide of {options.large} px {large_mb:.0f} MB: {large_mb / small_mb:.2f} x"
        )


if __name__ == "__main__":
    main()
