"""One file per slide and step: a Zarr v3 group in an uncompressed zip, whole or not there at all.

Any Zarr reader opens the file; images stored as JPEG need `import glomerulearn.stores` first, which tells zarr their codec.
Images lie one to a chunk and are written to and read from the zip directly: zarr's own way costs more than the decoding.
"""

import glob
import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from numcodecs.zstd import Zstd
from zarr.abc.codec import ArrayBytesCodec
from zarr.codecs import ZstdCodec
from zarr.registry import register_codec

from glomerulearn import jpeg
from glomerulearn.errors import InputError

CODECS = ("zstd", "jpeg")
JPEG_QUALITY = 90
_ZSTD_LEVEL = -1  # on tissue 4 % larger than level 1, and read three times as fast
_ZSTD_CODEC = ZstdCodec(level=_ZSTD_LEVEL, checksum=True)
_zstd = Zstd(
    _ZSTD_LEVEL, checksum=True
)  # what zarr's codec of the same settings reads; its checksum tells a flipped byte
_LOCAL_HEADER = 30  # bytes before the name in a zip's local header


@dataclass(frozen=True)
class JpegCodec(ArrayBytesCodec):
    """A chunk of (1, h, w, 3) uint8 as one JPEG image; zarr's own registry knows none."""

    name = "glomerulearn.jpeg"
    is_fixed_size = False
    quality: int = JPEG_QUALITY

    @classmethod
    def from_dict(cls, data: Mapping) -> "JpegCodec":
        return cls(**data.get("configuration", {}))

    def to_dict(self) -> dict:
        return {"name": self.name, "configuration": {"quality": self.quality}}

    # zarr asks this of codecs of a fixed size only; its own compressors answer likewise
    def compute_encoded_size(self, input_byte_length, _chunk_spec):
        raise NotImplementedError("the size of a JPEG image is known when it is made")

    async def _decode_single(self, chunk_bytes, chunk_spec):
        image = jpeg.decode(chunk_bytes.to_bytes(), jpeg.buffer(chunk_spec.shape[1:]))
        return chunk_spec.prototype.nd_buffer.from_numpy_array(image[None])

    async def _encode_single(self, chunk_array, chunk_spec):
        return chunk_spec.prototype.buffer.from_bytes(encode(chunk_array.as_numpy_array()[0], "jpeg"))


register_codec(JpegCodec.name, JpegCodec)


def encode(image: np.ndarray, codec: str) -> bytes:
    """An image as the bytes of its chunk: lossless `zstd`, or `jpeg` (quality 90, 4:2:0; uint8 RGB only)."""
    if codec == "jpeg":
        return jpeg.encode(image, JPEG_QUALITY)
    return _zstd.encode(np.ascontiguousarray(image))


class StoreWriter:
    """A store being written: `group` for small arrays and attributes, `add_images` and `put` for images."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive, self._rest, self._dimensions = archive, {}, {}
        self.group = zarr.open_group(zarr.storage.MemoryStore(self._rest), mode="w", zarr_format=3)

    def add_images(self, name: str, shape: tuple[int, ...], codec: str = "zstd") -> None:
        """An array of uint8 images (N, h, w, ...), one to a chunk; each must be `put`."""
        how = {"serializer": JpegCodec(), "compressors": None} if codec == "jpeg" else {"compressors": _ZSTD_CODEC}
        self.group.create_array(name, shape=shape, chunks=(1, *shape[1:]), dtype="uint8", **how)
        self._dimensions[name] = len(shape) - 1

    def put(self, name: str, index: int, encoded: bytes) -> None:
        """Write image `index` of array `name`, as `encode` made it."""
        self._archive.writestr(zipfile.ZipInfo(_chunk_key(name, index, self._dimensions[name])), encoded)

    def add_values(self, name: str, values: np.ndarray) -> None:
        """A small array stored in one piece."""
        values = np.asarray(values)
        # zarr refuses chunks of no length, which an array of no rows would get
        array = self.group.create_array(
            name, shape=values.shape, chunks=tuple(max(1, size) for size in values.shape), dtype=values.dtype
        )
        if values.size:
            array[...] = values

    def finish(self) -> None:
        for key, value in self._rest.items():
            self._archive.writestr(zipfile.ZipInfo(key), value.to_bytes())
        self._archive.comment = _directory_digest(self._archive)


def _directory_digest(archive: zipfile.ZipFile) -> bytes:
    """A zip guards its entries by checksums, but not the list of them: a damaged name would read as nothing stored."""
    listed = "".join(
        f"{each.filename} {each.header_offset} {each.file_size} {each.CRC}\n" for each in archive.infolist()
    )
    return hashlib.sha256(listed.encode()).hexdigest().encode()


def _chunk_key(name: str, index: int, dimensions: int) -> str:
    return f"{name}/c/{index}" + "/0" * dimensions


@contextmanager
def writing(path: str | Path) -> Iterator[StoreWriter]:
    """A store to fill; it appears at `path` as one `.zarr.zip` file only when the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        shutil.rmtree(left, ignore_errors=True)  # of a job that was killed
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        packed = Path(folder, "packed.zip")
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            writer = StoreWriter(archive)
            yield writer
            writer.finish()
        os.replace(packed, path)


@dataclass(frozen=True)
class _Images:
    """How the images of one array lie in the zip."""

    shape: tuple[int, ...]
    codec: str


class StoreReader:
    """Reads a store; safe in forked and spawned DataLoader workers (every process opens the file for itself)."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._group, self._pid = None, None
        self.group  # noqa: B018 (opened now, so that what is damaged is known now)

    @property
    def group(self) -> zarr.Group:
        if self._pid != os.getpid():
            try:
                with zipfile.ZipFile(self.path) as archive:
                    if archive.comment != _directory_digest(archive):
                        raise ValueError("its list of entries is damaged")
                    self._entries = {
                        entry.filename: (entry.header_offset, entry.file_size, entry.CRC)
                        for entry in archive.infolist()
                    }
                self._file = self.path.open("rb")
                self._group = zarr.open_group(zarr.storage.ZipStore(self.path, mode="r"), mode="r")
                self.attributes = dict(self._group.attrs)
            except OSError as error:  # the file may be as good as ever
                raise InputError(f"{self.path}: cannot be read ({error}); mend that and run again") from error
            except Exception as error:  # zipfile and zarr raise anything on damaged bytes
                raise InputError(f"{self.path}: no readable store ({error}); delete it and run again") from error
            self._images, self._pid = {}, os.getpid()
        return self._group

    def read(self, name: str, index: int | None = None) -> np.ndarray:
        """Image `index` of array `name`, or all of an array.

        Raises: InputError naming store and item when bytes are damaged.
        """
        try:
            if index is None:
                return np.asarray(self.group[name][...])
            return self._image(name, index)
        except InputError:  # in a process that opens the file for itself
            raise
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error}); mend that and run again") from error
        except Exception as error:  # as above
            item = name if index is None else f"{name}[{index}]"
            raise InputError(f"{self.path}: {item} is damaged ({error}); delete the file and run again") from error

    def __contains__(self, name: str) -> bool:
        self.group  # noqa: B018
        return f"{name}/zarr.json" in self._entries

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_group": None, "_pid": None, "_file": None, "_entries": None}

    def _image(self, name: str, index: int) -> np.ndarray:
        group = self.group
        if name not in self._images:
            array = group[name]
            serializer = array.metadata.codecs[0]
            codec = "jpeg" if isinstance(serializer, JpegCodec) else "zstd"
            self._images[name] = _Images(array.shape[1:], codec)
        images = self._images[name]
        key = _chunk_key(name, index, len(images.shape))
        if key not in self._entries:
            raise ValueError("it is not in the file")
        offset, size, crc = self._entries[key]
        start = _LOCAL_HEADER + len(key)
        # the writer above leaves no extra field, so one read fetches header and image
        data = memoryview(os.pread(self._file.fileno(), start + size, offset))
        if len(data) != start + size or data[_LOCAL_HEADER:start] != key.encode():
            raise ValueError("another item stands in its place")
        if images.codec == "zstd":
            return np.frombuffer(_zstd.decode(data[start:]), np.uint8).reshape(images.shape)
        if zlib.crc32(data[start:]) != crc:
            raise ValueError("wrong checksum")
        return jpeg.decode(data[start:], jpeg.buffer(images.shape))
