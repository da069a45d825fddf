"""Stores: any Zarr reader opens them, damage is named, nothing half-written is there."""

import multiprocessing
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import ROOT, TILING

from glomerulearn import stores
from glomerulearn.errors import InputError
from glomerulearn.patches import PatchStore
from glomerulearn.running import logged
from glomerulearn.tiling import tile_slide


@pytest.fixture(scope="module", params=stores.CODECS)
def store(request, small_slide, tmp_path_factory):
    target = tmp_path_factory.mktemp(request.param) / "s.zarr.zip"
    settings = TILING | {"codec": request.param}
    assert tile_slide("s", small_slide[0], None, settings, target)["status"] == "ok"
    return target


def test_any_zarr_reader_opens_it(store):
    group = zarr.open_group(zarr.storage.ZipStore(store, mode="r"), mode="r")
    ours = PatchStore(store)
    assert group["images"].chunks == (1, 128, 128, 3) and group["coords"].dtype == np.int64
    for index in range(0, len(ours.grid), 3):
        assert np.array_equal(group["images"][index], ours.read("images", index))
    assert group.attrs["patch_size"] == 128 and group.attrs["overlap"] == 0 and group.attrs["reader"]


def test_windows_need_no_grid(store):
    reader = PatchStore(store)
    whole = reader.window(0, 0, 640)  # beyond the slide, too
    rng = np.random.default_rng(0)
    for x, y in rng.integers(-40, 500, (20, 2)):
        window = reader.window(int(x), int(y), 96)
        expected = np.full((96, 96, 3), 255, np.uint8)
        part = whole[max(y, 0) : max(y + 96, 0), max(x, 0) : max(x + 96, 0)]
        expected[max(-y, 0) : max(-y, 0) + part.shape[0], max(-x, 0) : max(-x, 0) + part.shape[1]] = part
        assert np.array_equal(window, expected)


def test_jpeg_looks_like_the_slide_and_is_small(small_slide, tmp_path):
    readers = []
    for codec in stores.CODECS:
        target = tmp_path / f"{codec}.zarr.zip"
        tile_slide("s", small_slide[0], None, TILING | {"codec": codec}, target)
        readers.append((PatchStore(target), target.stat().st_size))
    (exact, large), (lossy, small) = readers
    difference = np.abs(exact.window(100, 100, 300).astype(int) - lossy.window(100, 100, 300))
    assert difference.mean() < 5 and small < large / 2


@pytest.mark.parametrize("place", [60, 2000])
def test_flipped_byte_names_store_and_patch(store, tmp_path, place, array="images"):
    path = shutil.copy(store, tmp_path / "flipped.zarr.zip")
    with zipfile.ZipFile(path) as archive:
        entry = max(
            (each for each in archive.infolist() if each.filename.startswith(f"{array}/c/")), key=lambda e: e.file_size
        )
    index = int(entry.filename.split("/")[2])
    place = entry.header_offset + min(place, entry.file_size)
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 0xFF]))
    with pytest.raises(InputError, match=rf"flipped\.zarr\.zip: {array}\[{index}\] is damaged"):
        PatchStore(path).read(array, index)


def test_a_flip_anywhere_is_an_error_or_changes_nothing(store, tmp_path):
    whole = store.read_bytes()
    good = PatchStore(store)
    names = ("grid", "coords", "tissue", "ok")
    expected = {name: good.read(name) for name in names} | {"window": good.window(0, 0, 640)}
    rng = np.random.default_rng(0)
    # half of them in the list of entries at the end
    places = [*rng.integers(0, len(whole), 60), *(len(whole) - 1 - rng.integers(0, 4000, 60))]
    seen = 0
    for place in map(int, places):
        path = tmp_path / "f.zarr.zip"
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            reader = PatchStore(path)
            found = {name: reader.read(name) for name in names} | {"window": reader.window(0, 0, 640)}
        except InputError as error:
            assert "f.zarr.zip" in str(error)
            seen += 1
        else:
            assert reader.attributes == good.attributes
            assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert seen > 60


def test_a_truncated_store_is_named(store, tmp_path):
    path = tmp_path / "cut.zarr.zip"
    path.write_bytes(store.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"cut\.zarr\.zip: no readable store .*run again"):
        PatchStore(path)


def test_interrupted_writing_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), stores.writing(tmp_path / "s.zarr.zip"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_killed_while_writing_leaves_no_store_and_a_rerun_completes(small_slide, tmp_path):
    """SIGKILL in the midst of a store: nothing under the final name; the same call then makes it."""
    target = tmp_path / "s.zarr.zip"
    code = (
        f"import sys, time; sys.path[:0] = [{str(ROOT / 'workflow_scripts')!r}]\n"
        "from glomerulearn.tiling import tile_slide\n"
        "def slow(items):\n"
        "    for item in items:\n"
        "        time.sleep(0.2); yield item\n"
        f"tile_slide('s', {str(small_slide[0])!r}, None, {TILING!r}, {str(target)!r}, 1, slow)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 60
    while not list(tmp_path.rglob("packed.zip")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not target.exists()
    row = tile_slide("s", small_slide[0], None, TILING, target)
    assert row["status"] == "ok" and PatchStore(target).usable and list(tmp_path.iterdir()) == [target]


def _window_sum(store, results):
    results.put(int(store.window(100, 100, 64).sum()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_store_travels_to_workers(store, method):
    reader = PatchStore(store)
    expected = int(reader.window(100, 100, 64).sum())
    context = multiprocessing.get_context(method)
    results = context.Queue()
    sent = pickle.loads(pickle.dumps(reader)) if method == "spawn" else reader
    worker = context.Process(target=_window_sum, args=(sent, results))
    worker.start()
    assert results.get(timeout=60) == expected
    worker.join()


def test_threads_change_nothing(small_slide, store, tmp_path):
    codec = PatchStore(store).attributes["codec"]
    target = tmp_path / "t.zarr.zip"
    tile_slide("s", small_slide[0], None, TILING | {"codec": codec}, target, threads=3)
    one, three = PatchStore(store), PatchStore(target)
    assert np.array_equal(one.grid, three.grid)
    assert np.array_equal(one.window(0, 0, *one.canvas), three.window(0, 0, *one.canvas))


def test_a_job_opens_more_slides_than_the_usual_limit(small_store, tmp_path):
    """And where even that is too few, the file is not called damaged."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = len(list(Path("/proc/self/fd").iterdir())) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, limits[1]))
    try:
        with pytest.raises(InputError, match=r"small\.zarr\.zip: cannot be read .*Too many open files"):
            [PatchStore(small_store) for _ in range(20)]
        opened = PatchStore(small_store)
        opened._pid = None  # as in another process
        with ExitStack() as others:
            with suppress(OSError):
                while True:
                    others.enter_context(small_store.open("rb"))
            with pytest.raises(InputError, match=r"small\.zarr\.zip: cannot be read .*Too many open files.*run again$"):
                opened.read("images", 0)
        with logged(str(tmp_path / "log")):
            assert len([PatchStore(small_store) for _ in range(20)]) == 20
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
