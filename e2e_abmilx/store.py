"""One slide's patches on disk: a zarr v3 group that zarr-python opens, and a far faster reader of it.

``<slide>.zarr`` holds for each scale ``<scale>/patches``, uint8 (N, P, P, 3), and ``<scale>/coords``, int64
(N, 2); for the slide ``thumbnail`` and ``tissue``. A patch is a JPEG stream followed by its crc32c, and
thousands of them lie one after another in a shard file that ends in an index. ``STORE_FORMAT.md``, beside
this file, describes every byte.

Letters: N patches of a scale, n patches asked for or appended, P patch side in pixels, (h, w) the size of a
small picture of the slide.
"""

import asyncio
import functools
import itertools
import json
import math
import os
import shutil
import socket
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, Literal, Self

import imagecodecs
import numpy as np
import zarr
from google_crc32c import value as crc32c
from numpy.typing import ArrayLike, NDArray
from zarr.abc.codec import ArrayBytesCodec
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.registry import register_codec

from e2e_abmilx.errors import InputError

FORMAT_VERSION = 1
JPEG_QUALITY = 90  # benchmarks/store_quality.py prints the table behind this choice
PATCHES_PER_SHARD = 4096  # about 100 MB, so that a large slide is a dozen files
OPEN_SHARDS = 128  # file handles a process keeps: far below the usual limit of 1024, and reopening is cheap

_HEADER = "e2e_abmilx"  # the one root attribute that is ours; the others are the builder's
_CRC_BYTES = 4
_CRC_RESIDUE = 0x48674BC7  # crc32c of any message that is followed by its own crc32c
_EMPTY = 2**64 - 1  # index entry of a patch that a shard does not hold
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_BASELINE_FRAME, _SCAN = 0xC0, 0xDA  # markers: the frame header of a baseline stream, and the first pixels
_BATCH = 1024  # patches encoded ahead of the disk
_SHARES = (
    4  # parts of a read a thread, so that a thread whose core is busy elsewhere leaves some to the others
)

Subsampling = Literal["420", "422", "444"]


class StoreError(InputError):
    """A patch store is missing, foreign, damaged or cannot be written; the message names the cure."""


try:
    # Where imagecodecs has its own codec, ours is that very class: zarr never has to choose between two.
    from imagecodecs.zarr import Jpeg as JpegCodec
except ImportError:

    @dataclass(frozen=True, kw_only=True)
    class JpegCodec(ArrayBytesCodec):  # type: ignore[no-redef]
        """The zarr v3 codec ``imagecodecs_jpeg``: a chunk is one JPEG stream.

        It knows those settings of imagecodecs' codec of the same name that a patch store uses.

        Args:
            level: JPEG quality, 1 to 100.
            subsampling: Chroma subsampling, ``"420"``, ``"422"`` or ``"444"``.
        """

        is_fixed_size = False
        level: int | None = None
        subsampling: Subsampling | None = None

        @classmethod
        def from_dict(cls, data: dict[str, Any]) -> Self:
            """Make the codec from its entry in ``zarr.json``."""
            settings = data.get("configuration", {})
            if unknown := settings.keys() - {"level", "subsampling"}:
                raise ValueError(
                    f"this array's JPEG settings {sorted(unknown)} need imagecodecs' own codec:"
                    " install imagecodecs-zarr"
                )
            return cls(**settings)

        def to_dict(self) -> dict[str, Any]:
            """The codec's entry in ``zarr.json``."""
            settings = {"level": self.level, "subsampling": self.subsampling}
            known = {key: value for key, value in settings.items() if value is not None}
            return {"name": "imagecodecs_jpeg", "configuration": known}

        async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:  # noqa: ANN401
            pixels = await asyncio.to_thread(imagecodecs.jpeg8_decode, chunk_data.as_numpy_array())
            return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels.reshape(chunk_spec.shape))

        async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:  # noqa: ANN401
            pixels = chunk_data.as_numpy_array().reshape(chunk_spec.shape[-3:])
            jpeg = await asyncio.to_thread(encode_patch, pixels, self.level, self.subsampling)
            return chunk_spec.prototype.buffer.from_bytes(jpeg)

        def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:  # noqa: ANN401
            """Raise what zarr expects of a codec whose output has no fixed size."""
            raise NotImplementedError


# The entry point serves programs that import only zarr; this line serves a checkout that is not installed.
register_codec("imagecodecs_jpeg", JpegCodec)


class PatchStore:
    """One slide's patches, read at random.

    Opening reads one small JSON file. A shard is opened when a patch of it is first read, and a process keeps
    at most ``OPEN_SHARDS`` of them open, however many stores it holds. A pickled store is its path.

    Every patch is checked against its checksum before it is decoded: a damaged one is an error, never a wrong
    picture.

    Args:
        path: The ``<slide>.zarr`` folder.

    Raises:
        StoreError: If the folder is missing, foreign, damaged or of another format version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        metadata, modified_ns = _read_metadata(self.path)
        header = metadata["attributes"].pop(_HEADER)
        self._attributes = MappingProxyType(metadata["attributes"])
        self._nodes: dict[str, Any] = metadata["consolidated_metadata"]["metadata"]
        self._patch_size: int = header["patch_size"]
        self._scales: list[_Scale] = []
        for number, mpp in enumerate(header["mpp"]):
            node = self._nodes[f"{number}/patches"]
            scale = _Scale(
                store=self.path,
                number=number,
                mpp=math.nan if mpp is None else mpp,
                num_patches=node["shape"][0],
                patches_per_shard=node["chunk_grid"]["configuration"]["chunk_shape"][0],
                modified_ns=modified_ns,
            )
            self._scales.append(scale)

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        scales = ", ".join(f"{scale.num_patches} patches at {scale.mpp:g} µm/px" for scale in self._scales)
        return f"PatchStore({str(self.path)!r}: {scales})"

    @property
    def name(self) -> str:
        """The slide's name: the folder's without ``.zarr``."""
        return self.path.name.removesuffix(".zarr")

    @property
    def scales(self) -> tuple[float, ...]:
        """µm per pixel of each scale, finest first; NaN where unknown."""
        return tuple(scale.mpp for scale in self._scales)

    @property
    def patch_size(self) -> int:
        """Side P of a patch in pixels, the same at every scale."""
        return self._patch_size

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the builder recorded about the slide and its settings."""
        return self._attributes

    def num_patches(self, scale: int = 0) -> int:
        """Number N of patches at a scale."""
        return self._scale(scale).num_patches

    def coords(self, scale: int = 0) -> NDArray[np.int64]:
        """Level-0 (x, y) of each patch's top left corner, shape (N, 2); (-1, -1) where unknown."""
        num_patches = self.num_patches(scale)
        if num_patches == 0:
            return np.empty((0, 2), np.int64)
        data = _read_checked(self.path / str(scale) / "coords" / "c.0.0")
        return np.frombuffer(data, "<i8").reshape(num_patches, 2).astype(np.int64)

    def read(self, indices: ArrayLike, scale: int = 0, *, threads: int = 1) -> NDArray[np.uint8]:
        """Decode patches, RGB, shape (n, P, P, 3), in the order asked.

        Args:
            indices: Which patches, shape (n,), each in 0 to N - 1; duplicates are allowed.
            scale: Index into ``scales``.
            threads: How many threads decode; more than one helps where no other process wants the cores.

        Raises:
            TypeError: If the indices are not a flat list of integers.
            IndexError: If an index or the scale lies outside the store.
            StoreError: If a patch is missing or damaged.
        """
        chosen = self._scale(scale)
        wanted = chosen.checked(indices)
        patches = np.empty((len(wanted), self._patch_size, self._patch_size, 3), np.uint8)
        if threads == 1:
            chosen.decode(wanted, patches)
            return patches
        # A pool for each call costs 0.1 ms and leaves nothing behind that a fork could break.
        with ThreadPoolExecutor(threads) as pool:
            size = math.ceil(len(wanted) / (_SHARES * threads)) or 1
            shares = [
                pool.submit(chosen.decode, wanted[start : start + size], patches[start : start + size])
                for start in range(0, len(wanted), size)
            ]
            for share in shares:
                share.result()
        return patches

    def read_encoded(self, indices: ArrayLike, scale: int = 0) -> list[bytes]:
        """The JPEG streams of patches, in the order asked, for decoding elsewhere, such as on a GPU.

        Args:
            indices: Which patches, shape (n,), each in 0 to N - 1; duplicates are allowed.
            scale: Index into ``scales``.

        Raises:
            IndexError: If an index or the scale lies outside the store.
            StoreError: If a patch is missing or damaged.
        """
        chosen = self._scale(scale)
        return [data[:-_CRC_BYTES] for data in chosen.chunks(chosen.checked(indices))]

    def thumbnail(self) -> NDArray[np.uint8] | None:
        """The slide from afar, RGB, shape (h, w, 3); None if the builder stored none."""
        if "thumbnail" not in self._nodes:
            return None
        return imagecodecs.jpeg8_decode(_read_checked(self.path / "thumbnail" / "c.0.0.0"))

    def tissue(self) -> NDArray[np.bool_] | None:
        """The tissue mask over the whole slide, shape (h, w); None if the builder stored none."""
        if "tissue" not in self._nodes:
            return None
        data = imagecodecs.zstd_decode(_read_checked(self.path / "tissue" / "c.0.0"))
        return np.frombuffer(data, np.bool_).reshape(self._nodes["tissue"]["shape"])

    def verify(self) -> Iterator[str]:
        """Check every checksum and decode every patch.

        Yields:
            One sentence a problem, naming scale and patch; nothing at all for a sound store.
        """
        for name, node in self._nodes.items():
            yield from _problems(functools.partial(_check_node, self.path / name, node))
        yield from _problems(self.thumbnail)
        yield from _problems(self.tissue)
        for number, scale in enumerate(self._scales):
            yield from _problems(functools.partial(self.coords, number))
            yield from scale.problems(self._patch_size)

    def _scale(self, scale: int) -> "_Scale":
        if not 0 <= scale < len(self._scales):
            raise IndexError(
                f"{self.path} has scales 0 to {len(self._scales) - 1}, not {scale}; see its `scales`"
            )
        return self._scales[scale]


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """The patches of one scale."""

    store: Path
    number: int
    mpp: float
    num_patches: int
    patches_per_shard: int
    modified_ns: int

    def checked(self, indices: ArrayLike) -> list[int]:
        wanted = np.asarray(indices)
        if wanted.size == 0:
            return []
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
            raise TypeError(
                f"patch indices must be a flat list of integers, not {wanted.dtype} of {wanted.shape}"
            )
        if wanted.min() < 0 or wanted.max() >= self.num_patches:
            raise IndexError(
                f"patch indices of {self} run from 0 to {self.num_patches - 1},"
                f" not {wanted.min()} to {wanted.max()}"
            )
        patches: list[int] = wanted.tolist()
        return patches

    def chunks(self, wanted: Iterable[int]) -> Iterator[bytes]:
        """The stored bytes of patches, checked: a JPEG stream and its crc32c each."""
        for patch in wanted:
            number, position = divmod(patch, self.patches_per_shard)
            shard = self.shard(number)
            try:
                data = shard.chunk(position)
            except (OSError, OverflowError) as error:
                raise StoreError(
                    f"{self}, patch {patch} cannot be read: {error}; build this store anew"
                ) from error
            if crc32c(data) != _CRC_RESIDUE:
                raise StoreError(
                    f"{self}, patch {patch} is damaged: its checksum does not match; build this store anew"
                )
            yield data

    def decode(self, wanted: Sequence[int], out: NDArray[np.uint8]) -> None:
        for patch, data, pixels in zip(wanted, self.chunks(wanted), out, strict=True):
            try:
                imagecodecs.jpeg8_decode(data, out=pixels)
            except (imagecodecs.Jpeg8Error, ValueError) as error:
                raise StoreError(
                    f"{self}, patch {patch} cannot be decoded: {error}; build this store anew"
                ) from error

    def problems(self, patch_size: int) -> Iterator[str]:
        pixels = np.empty((1, patch_size, patch_size, 3), np.uint8)
        for first in range(0, self.num_patches, self.patches_per_shard):
            if broken := list(_problems(functools.partial(self.shard, first // self.patches_per_shard))):
                yield from broken
                continue
            for patch in range(first, min(first + self.patches_per_shard, self.num_patches)):
                yield from _problems(functools.partial(self.decode, [patch], pixels))

    def shard(self, number: int) -> "_Shard":
        try:
            return _open_shard(
                f"{self.store}/{self.number}/patches/c.{number}.0.0.0",
                self.patches_per_shard,
                self.modified_ns,
            )
        except (OSError, ValueError) as error:
            first = number * self.patches_per_shard
            last = min(first + self.patches_per_shard, self.num_patches) - 1
            raise StoreError(
                f"{self}, patches {first} to {last} cannot be read: {error}; build this store anew"
            ) from error

    def __str__(self) -> str:
        return f"{self.store}, scale {self.number}"


class _Shard:
    """An open shard file: chunks one after another, then where each starts and how long it is.

    It is read with ``pread``, not through a memory map. Beside a JPEG decode the call costs nothing; a cold
    read fetches the patch in one go, where a map takes a page at a time; mapped pages do not add to the
    process; and a failing disk raises an error where a map would kill the process.
    """

    def __init__(self, path: str, num_chunks: int) -> None:
        self._file = FileIO(path)
        num_bytes = 16 * num_chunks + _CRC_BYTES
        start = os.fstat(self._file.fileno()).st_size - num_bytes
        index = os.pread(self._file.fileno(), num_bytes, start) if start >= 0 else b""
        if crc32c(index) != _CRC_RESIDUE:
            raise ValueError(f"the checksum of the index of {path} does not match")
        self._index = np.frombuffer(index, "<u8", 2 * num_chunks).reshape(num_chunks, 2)
        if (self._index[self._index[:, 0] != _EMPTY] > start).any():
            raise ValueError(f"the index of {path} points outside the file")

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def chunk(self, position: int) -> bytes:
        offset, num_bytes = self._index[position].tolist()
        return os.pread(self._file.fileno(), num_bytes, offset)


@functools.lru_cache(maxsize=OPEN_SHARDS)
def _open_shard(path: str, num_chunks: int, modified_ns: int) -> _Shard:
    """The shard, open; ``modified_ns`` keeps a store rebuilt under its old name from meeting old handles."""
    return _Shard(path, num_chunks)


class StoreWriter:
    """Write a store bit by bit in bounded memory; it appears under its name only when whole.

    Use it in a ``with`` block. Everything goes into a hidden folder beside ``path``, which is renamed when
    the block ends and removed if the block raises. A killed process leaves the hidden folder behind:
    ``leftovers`` finds it.

    Args:
        path: The ``<slide>.zarr`` folder to make; it must not exist.
        mpp: µm per pixel of each scale, finest first; NaN where unknown.
        patch_size: Side P of a patch in pixels.
        attributes: What to record about the slide and the settings: plain JSON values, None for an unknown
            number.
        quality: JPEG quality, 1 to 100.
        subsampling: JPEG chroma subsampling; ``"420"`` saves a third of the bytes and costs 4 to 5 dB on slides
            whose colour is as sharp as their brightness (``benchmarks/store_quality.py``).
        threads: How many threads encode.

    Raises:
        StoreError: If the store exists already, or its parent cannot be written.
        ValueError: If an argument breaks its rule.
    """

    def __init__(
        self,
        path: str | Path,
        mpp: Sequence[float],
        *,
        patch_size: int,
        attributes: Mapping[str, Any] = MappingProxyType({}),
        quality: int = JPEG_QUALITY,
        subsampling: Subsampling = "444",
        threads: int = 1,
    ) -> None:
        known = [value for value in mpp if not math.isnan(value)]
        if known != sorted(known) or not all(value > 0 for value in known):
            raise ValueError(f"scales must be positive µm/px, finest first, not {list(mpp)}; sort them")
        if not 1 <= quality <= 100:
            raise ValueError(f"JPEG quality must lie in 1 to 100, not {quality}")
        self.path = Path(path)
        self._mpp = [None if math.isnan(value) else float(value) for value in mpp]
        self._patch_size = patch_size
        self._attributes = _plain_json(attributes)
        self._quality = quality
        self._subsampling: Subsampling = subsampling
        self._pool = ThreadPoolExecutor(threads)
        self._thumbnail: NDArray[np.uint8] | None = None
        self._tissue: NDArray[np.bool_] | None = None
        if self.path.exists():
            raise StoreError(f"{self.path} exists already; delete it to write it anew")
        self._partial = self.path.with_name(
            f"{_partial_prefix(self.path)}{socket.gethostname()}-{os.getpid()}"
        )
        with _disk_errors(self.path):
            self._partial.mkdir(parents=True)
            self._scales = [
                _ScaleWriter(self._partial / str(number) / "patches") for number in range(len(mpp))
            ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with _disk_errors(self.path):
                    self._finish()
        finally:
            self._pool.shutdown(cancel_futures=True)
            for scale in self._scales:
                scale.abandon()
            shutil.rmtree(self._partial, ignore_errors=True)

    def write(self, patches: NDArray[np.uint8], coords: NDArray[np.integer[Any]], scale: int = 0) -> None:
        """Append patches to a scale; scales may take turns.

        Args:
            patches: RGB, shape (n, P, P, 3), any n.
            coords: Level-0 (x, y) of each patch's top left corner, shape (n, 2); (-1, -1) where unknown.
            scale: Index into ``mpp``.

        Raises:
            StoreError: If the disk is full or fails.
            ValueError: If a shape or a dtype is wrong.
        """
        shape = (len(coords), self._patch_size, self._patch_size, 3)
        if patches.shape != shape or patches.dtype != np.uint8:
            raise ValueError(f"patches must be uint8 of {shape}, not {patches.dtype} of {patches.shape}")
        encode = functools.partial(encode_patch, quality=self._quality, subsampling=self._subsampling)
        self._append(self._pool.map(encode, patches), coords, scale)

    def write_encoded(self, jpegs: Iterable[bytes], coords: NDArray[np.integer[Any]], scale: int = 0) -> None:
        """Append patches that are JPEG streams already, byte for byte: to encode anew would lose once more.

        Each stream is decoded once, so that a broken one is named now and not by whoever reads it. What a store
        says of its quality and subsampling does not speak of these patches.

        Args:
            jpegs: Baseline JPEG streams of P × P pixels in three components, n of them; taken one at a time.
            coords: Level-0 (x, y) of each patch's top left corner, shape (n, 2); (-1, -1) where unknown.
            scale: Index into ``mpp``.

        Raises:
            StoreError: If a stream is of another kind or broken, or the disk is full or fails.
            ValueError: If the coordinates have a wrong shape or dtype, or another number than the streams.
        """
        before = self._scales[scale].num_patches
        self._append(map(self._checked, jpegs, itertools.count(before)), coords, scale)
        if (written := self._scales[scale].num_patches - before) != len(coords):
            raise ValueError(f"there are {written} JPEG streams for {len(coords)} coords; give one for each")

    def write_thumbnail(self, thumbnail: NDArray[np.uint8]) -> None:
        """Keep a picture of the slide from afar, RGB, shape (h, w, 3)."""
        self._thumbnail = thumbnail

    def write_tissue(self, tissue: NDArray[np.bool_]) -> None:
        """Keep the tissue mask over the whole slide, shape (h, w)."""
        self._tissue = tissue

    def _append(self, jpegs: Iterable[bytes], coords: NDArray[np.integer[Any]], scale: int) -> None:
        if coords.shape[1:] != (2,) or coords.dtype.kind not in "iu":
            raise ValueError(f"coords must be integers of (n, 2), not {coords.dtype} of {coords.shape}")
        with _disk_errors(self.path):
            self._scales[scale].append(jpegs, coords)

    def _checked(self, jpeg: bytes, patch: int) -> bytes:
        pixels = np.empty((self._patch_size, self._patch_size, 3), np.uint8)
        try:
            if (shape := jpeg_shape(jpeg)) != pixels.shape:
                raise ValueError(f"it is of {shape}, not of {pixels.shape}")
            imagecodecs.jpeg8_decode(jpeg, out=pixels)
        except (imagecodecs.Jpeg8Error, ValueError) as error:
            raise StoreError(
                f"the JPEG stream of patch {patch} cannot go into {self.path} as it is: {error};"
                " decode and resize it, or leave it out"
            ) from error
        return jpeg

    def _finish(self) -> None:
        for scale in self._scales:
            scale.finish()
        self._write_arrays()
        _add_metadata_checksum(self._partial / "zarr.json")
        for folder, _, files in os.walk(self._partial, topdown=False):
            for file in files:
                _sync(Path(folder, file))
            _sync(Path(folder))
        self._partial.rename(self.path)
        _sync(self.path.parent)

    def _write_arrays(self) -> None:
        """Everything but the shards, which are already there: zarr-python writes it."""
        header = {
            "format_version": FORMAT_VERSION,
            "patch_size": self._patch_size,
            "mpp": self._mpp,
            "jpeg_quality": self._quality,
            "jpeg_subsampling": self._subsampling,
        }
        root = zarr.create_group(self._partial, attributes={**self._attributes, _HEADER: header})
        jpeg = JpegCodec(level=self._quality, subsampling=self._subsampling)
        patch = (self._patch_size, self._patch_size, 3)
        for number, scale in enumerate(self._scales):
            _create_array(
                root,
                f"{number}/patches",
                ("patch", "y", "x", "channel"),
                dtype="uint8",
                shape=(scale.num_patches, *patch),
                shards=(scale.patches_per_shard, *patch),
                chunks=(1, *patch),
                serializer=jpeg,
            )
            _write_array(root, f"{number}/coords", scale.coords(), ("patch", "xy"))
        if self._thumbnail is not None:
            _write_array(root, "thumbnail", self._thumbnail, ("y", "x", "channel"), serializer=jpeg)
        if self._tissue is not None:
            _write_array(
                root, "tissue", self._tissue, ("y", "x"), compressors=[ZstdCodec(level=3), Crc32cCodec()]
            )
        with warnings.catch_warnings():
            # It warns that this is its own extension; readers that do not know it read each zarr.json.
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            zarr.consolidate_metadata(root.store)


class _ScaleWriter:
    """Appends the encoded patches of one scale to one shard file after another."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._file: BinaryIO | None = None
        self._index: list[tuple[int, int]] = []
        self._coords = [np.empty((0, 2), np.int64)]
        self.num_patches = 0

    @property
    def patches_per_shard(self) -> int:
        # A scale that fits into one shard gets an index of just its size.
        return min(max(self.num_patches, 1), PATCHES_PER_SHARD)

    def coords(self) -> NDArray[np.int64]:
        return np.concatenate(self._coords)

    def append(self, encoded: Iterable[bytes], coords: NDArray[np.integer[Any]]) -> None:
        for jpeg in encoded:
            if self._file is None:
                self._file = (self._folder / f"c.{self.num_patches // PATCHES_PER_SHARD}.0.0.0").open("xb")
            self._index.append((self._file.tell(), len(jpeg) + _CRC_BYTES))
            self._file.write(_with_crc(jpeg))
            self.num_patches += 1
            if len(self._index) == PATCHES_PER_SHARD:
                self._finish_shard(self._file)
        self._coords.append(coords.astype(np.int64))

    def finish(self) -> None:
        if self._file is not None:
            self._index += [(_EMPTY, _EMPTY)] * (self.patches_per_shard - len(self._index))
            self._finish_shard(self._file)

    def abandon(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # closing flushes, and a full disk fails once more
                self._file.close()

    def _finish_shard(self, file: BinaryIO) -> None:
        file.write(_with_crc(np.array(self._index, "<u8").tobytes()))
        file.close()
        self._file = None
        self._index = []


def write_store(
    path: str | Path,
    scales: Mapping[float, tuple[NDArray[np.uint8], NDArray[np.integer[Any]] | None]],
    *,
    attributes: Mapping[str, Any] = MappingProxyType({}),
    quality: int = JPEG_QUALITY,
    subsampling: Subsampling = "444",
) -> PatchStore:
    """Write your own patches as a store.

    Args:
        path: The ``<slide>.zarr`` folder to make; it must not exist.
        scales: For each µm per pixel (NaN where unknown) the patches, RGB uint8 of shape (N, P, P, 3), and
            the level-0 (x, y) of their top left corners, shape (N, 2), or None where unknown.
        attributes: What to record: plain JSON values, None for an unknown number.
        quality: JPEG quality, 1 to 100.
        subsampling: JPEG chroma subsampling; ``"420"`` saves a third of the bytes and costs 4 to 5 dB on slides
            whose colour is as sharp as their brightness (``benchmarks/store_quality.py``).

    Raises:
        StoreError: If the store exists already or cannot be written.
        ValueError: If an argument breaks its rule.
    """
    finest_first = sorted(scales, key=lambda mpp: (math.isnan(mpp), mpp))
    with StoreWriter(
        path,
        finest_first,
        patch_size=scales[finest_first[0]][0].shape[1],
        attributes=attributes,
        quality=quality,
        subsampling=subsampling,
    ) as writer:
        for number, mpp in enumerate(finest_first):
            patches, coords = scales[mpp]
            known = np.full((len(patches), 2), -1) if coords is None else coords
            for start in range(0, max(len(patches), len(known)), _BATCH):
                batch = slice(start, start + _BATCH)
                writer.write(patches[batch], known[batch], number)
    return PatchStore(path)


def leftovers(path: str | Path) -> list[Path]:
    """The hidden folders that killed writers of a store left; delete them when no writer is at work on it."""
    path = Path(path)
    return sorted(found for found in path.parent.iterdir() if found.name.startswith(_partial_prefix(path)))


def _partial_prefix(path: Path) -> str:
    return f".{path.name}.partial-"


def encode_patch(patch: NDArray[np.uint8], quality: int | None, subsampling: Subsampling | None) -> bytes:
    """Encode a patch, uint8 of shape (P, P, 3), as the store does."""
    return bytes(
        imagecodecs.jpeg8_encode(np.ascontiguousarray(patch), level=quality, subsampling=subsampling)
    )


def jpeg_shape(jpeg: bytes) -> tuple[int, int, int]:
    """Height, width and components of a complete baseline JPEG stream, from its header.

    Raises:
        ValueError: If it is something else, or ends too early.
    """
    start = 2
    if jpeg[:2] == _JPEG_START and jpeg[-2:] == _JPEG_END:
        while jpeg[start : start + 1] == b"\xff" and jpeg[start + 1] != _SCAN:
            if jpeg[start + 1] == _BASELINE_FRAME and len(jpeg) >= start + 10:
                height, width, components = struct.unpack_from(">HHB", jpeg, start + 5)
                return height, width, components
            start += 2 + int.from_bytes(jpeg[start + 2 : start + 4])
    raise ValueError("it is not a complete baseline JPEG stream")


def _create_array(
    root: zarr.Group,
    name: str,
    dimensions: tuple[str, ...],
    **layout: Any,  # noqa: ANN401
) -> "zarr.Array[Any]":
    return root.create_array(
        name,
        **{"compressors": [Crc32cCodec()], **layout},
        filters=None,
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=dimensions,
        config={"write_empty_chunks": True},  # so that an absent file is always damage, never "all zero"
    )


def _write_array(
    root: zarr.Group,
    name: str,
    data: NDArray[Any],
    dimensions: tuple[str, ...],
    **codecs: Any,  # noqa: ANN401
) -> None:
    chunk = tuple(max(length, 1) for length in data.shape)
    array = _create_array(root, name, dimensions, dtype=data.dtype, shape=data.shape, chunks=chunk, **codecs)
    array[...] = data


def _plain_json(attributes: Mapping[str, Any]) -> dict[str, Any]:
    if _HEADER in attributes:
        raise ValueError(f"the attribute {_HEADER!r} is the store's own; choose another name")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(attributes), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"attributes must be plain JSON values: {error}; use None for an unknown number"
        ) from error
    return plain


def _read_metadata(path: Path) -> tuple[dict[str, Any], int]:
    """The root ``zarr.json``, once found to be ours and unharmed, and when it was written, in ns."""
    try:
        with (path / "zarr.json").open("rb") as file:
            modified_ns = os.fstat(file.fileno()).st_mtime_ns
            metadata: dict[str, Any] = json.load(file)
        header = metadata["attributes"][_HEADER]
        version, checksum = header["format_version"], header["crc32c"]
    except OSError as error:
        raise StoreError(
            f"no patch store at {path} ({error.strerror}); run `e2e-abmilx cache` first"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(
            f"{path} is not a patch store, or its zarr.json is damaged; build it anew"
        ) from error
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version} and this release reads {FORMAT_VERSION}; "
            "build it anew or install the release that wrote it"
        )
    if checksum != _metadata_crc(metadata):
        raise StoreError(
            f"{path} has a zarr.json that was edited or damaged since it was written; build it anew"
        )
    return metadata, modified_ns


def _add_metadata_checksum(path: Path) -> None:
    metadata = json.loads(path.read_bytes())
    metadata["attributes"][_HEADER]["crc32c"] = _metadata_crc(metadata)
    path.write_text(json.dumps(metadata, indent=2), encoding="utf-8")


def _metadata_crc(metadata: dict[str, Any]) -> str:
    """crc32c of the metadata without the checksum's own entry, as compact JSON with sorted keys."""
    header = {key: value for key, value in metadata["attributes"][_HEADER].items() if key != "crc32c"}
    bare = {**metadata, "attributes": {**metadata["attributes"], _HEADER: header}}
    return f"{crc32c(json.dumps(bare, sort_keys=True, separators=(',', ':')).encode()):08x}"


def _check_node(path: Path, expected: dict[str, Any]) -> None:
    """Compare a group's or an array's own ``zarr.json`` with the copy in the root."""
    try:
        found = json.loads((path / "zarr.json").read_bytes())
        same = {**found, "consolidated_metadata": None} == {**expected, "consolidated_metadata": None}
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path} has no readable zarr.json: {error}; build this store anew") from error
    if not same:
        raise StoreError(
            f"{path} has a zarr.json that differs from the root's copy of it; build this store anew"
        )


def _with_crc(data: bytes) -> bytes:
    checksum: int = crc32c(data)
    return data + checksum.to_bytes(_CRC_BYTES, "little")


def _read_checked(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}; build this store anew") from error
    if crc32c(data) != _CRC_RESIDUE:
        raise StoreError(f"{path} is damaged: its checksum does not match; build this store anew")
    return data[:-_CRC_BYTES]


def _problems(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except StoreError as error:
        yield str(error)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error};"
            " free some space, remove what is in the way or choose another folder, then run again"
        ) from error
