"""One file per slide and step: a Zarr v3 group in an uncompressed zip, whole or not there at all."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr

from glomerulearn.errors import InputError


@contextmanager
def writing(path: str | Path) -> Iterator[zarr.Group]:
    """A Zarr group to fill; it appears at `path` as one `.zarr.zip` file only when the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        yield zarr.open_group(f"{folder}/group", mode="w", zarr_format=3)
        packed = Path(folder, "packed.zip")
        _pack(Path(folder, "group"), packed)
        os.replace(packed, path)


def _pack(folder: Path, target: Path) -> None:
    # chunks are compressed already; the zip only joins them and adds its CRC-32 to each
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(item for item in folder.rglob("*") if item.is_file()):
            with archive.open(zipfile.ZipInfo(str(file.relative_to(folder))), "w", force_zip64=True) as entry:
                shutil.copyfileobj(file.open("rb"), entry)


def add_images(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str = "uint8") -> zarr.Array:
    """An array of images (N, h, w, ...) with one image per chunk, zstd-compressed."""
    return group.create_array(name, shape=shape, chunks=(1, *shape[1:]), dtype=dtype)


def add_values(group: zarr.Group, name: str, values: np.ndarray) -> None:
    """A small array stored in one piece."""
    values = np.asarray(values)
    # zarr refuses chunks of no length, which an array of no rows would get
    array = group.create_array(
        name, shape=values.shape, chunks=tuple(max(1, size) for size in values.shape), dtype=values.dtype
    )
    if values.size:
        array[...] = values


class StoreReader:
    """Reads a store; safe in forked and spawned DataLoader workers (every process opens the file for itself)."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._group, self._pid = None, None
        self.attributes = dict(self.group.attrs)

    @property
    def group(self) -> zarr.Group:
        if self._pid != os.getpid():
            try:
                store = zarr.storage.ZipStore(self.path, mode="r")
                self._group, self._pid = zarr.open_group(store, mode="r"), os.getpid()
            except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
                raise InputError(f"{self.path}: no readable store ({error}); delete it and run again") from error
        return self._group

    def read(self, name: str, index: int | slice = slice(None)) -> np.ndarray:
        """One item, a slice, or all of array `name`. Raises InputError naming store and item when bytes are damaged."""
        try:
            return np.asarray(self.group[name][index])
        except (zipfile.BadZipFile, RuntimeError, OSError, ValueError) as error:
            raise InputError(
                f"{self.path}: {name}[{index}] is damaged ({error}); delete the file and run again"
            ) from error

    def __contains__(self, name: str) -> bool:
        return name in self.group

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_group": None, "_pid": None}
