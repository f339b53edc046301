"""One slide's patches on disk: a zarr v3 group that zarr-python opens, and a reader that is much faster.

``<slide>.zarr`` holds, for each scale, the array ``<scale>/patches`` uint8 (N, P, P, 3): one patch a chunk, coded
as JPEG followed by its crc32c, many chunks in one shard file; ``<scale>/coords`` int64 (N, 2); and, once for the
slide, ``thumbnail`` and ``tissue``. ``STORE_FORMAT.md`` beside this file describes every byte.

Letters: N patches of a scale, n patches asked for, P patch side in pixels, (h, w) the thumbnail's size.
"""

import asyncio
import functools
import json
import math
import os
import shutil
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, Self

import imagecodecs
import numpy as np
import zarr
from google_crc32c import value as crc32c
from numpy.typing import ArrayLike, NDArray
from zarr.abc.codec import ArrayBytesCodec
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.registry import register_codec

FORMAT_VERSION = 1
JPEG_QUALITY = 90
JPEG_SUBSAMPLING = "420"
PATCHES_PER_SHARD = 4096
OPEN_SHARDS = (
    128  # file handles a process keeps: far below the usual limit of 1024, and reopening costs only ~50 µs
)

_HEADER = "e2e_abmilx"  # the root attribute that is ours; every other one is the builder's
_CRC_BYTES = 4
_CRC_RESIDUE = 0x48674BC7  # crc32c of any message followed by its own crc32c


class StoreError(Exception):
    """A patch store is missing, damaged, foreign or cannot be written; the message names it and the cure."""


try:
    # Where imagecodecs brings its own codec, ours is that very class: zarr then never has two to choose from.
    from imagecodecs.zarr import Jpeg as JpegCodec
except ImportError:

    @dataclass(frozen=True, kw_only=True)
    class JpegCodec(ArrayBytesCodec):  # type: ignore[no-redef]
        """The zarr v3 codec ``imagecodecs_jpeg``: one baseline JPEG stream a chunk.

        It understands those keys of imagecodecs' codec of the same name that a patch store uses.

        Args:
            level: JPEG quality, 1 to 100.
            subsampling: chroma subsampling, ``"444"``, ``"422"`` or ``"420"``.
        """

        is_fixed_size = False
        level: int | None = None
        subsampling: str | None = None

        @classmethod
        def from_dict(cls, data: dict[str, Any]) -> Self:
            """Read the codec's entry in ``zarr.json``."""
            configuration = data.get("configuration", {})
            if foreign := configuration.keys() - {"level", "subsampling"}:
                raise ValueError(
                    f"this array's JPEG codec is set with {sorted(foreign)}, which only imagecodecs' own codec "
                    "understands: install imagecodecs-zarr to read it"
                )
            return cls(**configuration)

        def to_dict(self) -> dict[str, Any]:
            """Write the codec's entry in ``zarr.json``."""
            configuration = {"level": self.level, "subsampling": self.subsampling}
            return {
                "name": "imagecodecs_jpeg",
                "configuration": {key: value for key, value in configuration.items() if value is not None},
            }

        async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:  # noqa: ANN401
            pixels = await asyncio.to_thread(imagecodecs.jpeg8_decode, chunk_data.as_numpy_array())
            return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels.reshape(chunk_spec.shape))

        async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:  # noqa: ANN401
            pixels = np.ascontiguousarray(chunk_data.as_numpy_array().reshape(chunk_spec.shape[-3:]))
            jpeg = await asyncio.to_thread(
                imagecodecs.jpeg8_encode, pixels, level=self.level, subsampling=self.subsampling
            )
            return chunk_spec.prototype.buffer.from_bytes(jpeg)

        def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:  # noqa: ANN401
            """JPEG has no fixed size; zarr asks for this exception."""
            raise NotImplementedError


register_codec("imagecodecs_jpeg", JpegCodec)


class PatchStore:
    """One slide's patches, read at random.

    Opening reads one small JSON file. Shards are opened when first read, and at most ``OPEN_SHARDS`` of them stay open
    in a process, however many stores it holds. Only the path travels when a store is pickled.

    Args:
        path: the ``<slide>.zarr`` folder.

    Raises:
        StoreError: if the folder is missing, damaged, of another kind or of another format version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        metadata = _read_metadata(self.path)
        header = metadata["attributes"].pop(_HEADER)
        arrays = metadata["consolidated_metadata"]["metadata"]
        self._attributes = MappingProxyType(metadata["attributes"])
        self._patch_size: int = header["patch_size"]
        self._scales = [
            _Scale.from_metadata(self.path / str(scale), mpp, arrays[f"{scale}/patches"])
            for scale, mpp in enumerate(header["mpp"])
        ]
        self._arrays = arrays

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        counts = ", ".join(f"{scale.num_patches} at {scale.mpp:g} µm/px" for scale in self._scales)
        return f"PatchStore({str(self.path)!r}: {counts}, {self.patch_size} px)"

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
        chosen = self._scale(scale)
        if not chosen.num_patches:
            return np.empty((0, 2), np.int64)
        data = _read_checked(chosen.folder / "coords" / "c.0.0")
        return np.frombuffer(data, "<i8").reshape(chosen.num_patches, 2).astype(np.int64)

    def read(self, indices: ArrayLike, scale: int = 0, *, threads: int = 1) -> NDArray[np.uint8]:
        """Decode patches, RGB, shape (n, P, P, 3), in the order asked.

        Args:
            indices: which patches, shape (n,), 0 to N - 1; duplicates are allowed.
            scale: index into ``scales``.
            threads: decode on that many threads of a pool that all stores of the process share.

        Raises:
            IndexError: if an index or the scale is outside the store.
            StoreError: if a patch is damaged.
        """
        chosen = self._scale(scale)
        wanted = self._checked(indices, chosen)
        patches = np.empty((len(wanted), self._patch_size, self._patch_size, 3), np.uint8)
        if threads == 1:
            chosen.decode(wanted, patches)
        else:
            share = math.ceil(len(wanted) / threads) or 1
            slices = [slice(start, start + share) for start in range(0, len(wanted), share)]
            list(_pool(os.getpid()).map(lambda part: chosen.decode(wanted[part], patches[part]), slices))
        return patches

    def read_encoded(self, indices: ArrayLike, scale: int = 0) -> list[bytes]:
        """The JPEG streams of patches in the order asked, for decoding elsewhere, for example on a GPU.

        Args:
            indices: which patches, shape (n,), 0 to N - 1.
            scale: index into ``scales``.

        Raises:
            IndexError: if an index or the scale is outside the store.
            StoreError: if a patch is damaged.
        """
        chosen = self._scale(scale)
        return [chosen.chunk(patch)[:-_CRC_BYTES] for patch in self._checked(indices, chosen)]

    def thumbnail(self) -> NDArray[np.uint8] | None:
        """The slide seen from afar, RGB, shape (h, w, 3); None if the builder stored none."""
        if "thumbnail" not in self._arrays:
            return None
        return imagecodecs.jpeg8_decode(_read_checked(self.path / "thumbnail" / "c.0.0.0"))

    def tissue(self) -> NDArray[np.bool_] | None:
        """The tissue mask over the slide, shape (h, w); None if the builder stored none."""
        if "tissue" not in self._arrays:
            return None
        data = imagecodecs.zstd_decode(_read_checked(self.path / "tissue" / "c.0.0"))
        return np.frombuffer(data, np.bool_).reshape(self._arrays["tissue"]["shape"])

    def verify(self) -> Iterator[str]:
        """Check every checksum and decode every patch.

        Yields:
            One sentence for each problem, naming scale and patch; nothing for a sound store.
        """
        for read in (self.thumbnail, self.tissue):
            yield from _problems(read)
        for number, scale in enumerate(self._scales):
            yield from _problems(functools.partial(self.coords, number))
            for patch in range(scale.num_patches):
                yield from _problems(functools.partial(self.read, [patch], number))

    def _scale(self, scale: int) -> "_Scale":
        if not 0 <= scale < len(self._scales):
            raise IndexError(
                f"{self.path} has scales 0 to {len(self._scales) - 1}, not {scale}; see its `scales`"
            )
        return self._scales[scale]

    def _checked(self, indices: ArrayLike, scale: "_Scale") -> list[int]:
        wanted = np.asarray(indices)
        if wanted.size == 0:
            return []
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
            raise TypeError(
                f"patch indices must be a flat list of integers, not {wanted.dtype} of shape {wanted.shape}"
            )
        if wanted.min() < 0 or wanted.max() >= scale.num_patches:
            raise IndexError(
                f"{scale.folder} has {scale.num_patches} patches, so indices run from 0 to {scale.num_patches - 1}, "
                f"not {wanted.min()} to {wanted.max()}"
            )
        return wanted.tolist()


@dataclass(frozen=True)
class _Scale:
    folder: Path
    mpp: float
    num_patches: int
    patches_per_shard: int

    @classmethod
    def from_metadata(cls, folder: Path, mpp: float | None, array: dict[str, Any]) -> "_Scale":
        return cls(
            folder,
            math.nan if mpp is None else mpp,
            array["shape"][0],
            array["chunk_grid"]["configuration"]["chunk_shape"][0],
        )

    def chunk(self, patch: int) -> bytes:
        """The stored bytes of a patch: its JPEG stream and the crc32c of that, checked."""
        number, position = divmod(patch, self.patches_per_shard)
        shard = _open_shard(self.folder / "patches" / f"c.{number}.0.0.0", self.patches_per_shard)
        data = shard.chunk(position)
        if crc32c(data) != _CRC_RESIDUE:
            raise StoreError(
                f"{self.folder}: patch {patch} is damaged, its checksum does not match; rebuild this store"
            )
        return data

    def decode(self, wanted: list[int], out: NDArray[np.uint8]) -> None:
        for position, patch in enumerate(wanted):
            try:
                imagecodecs.jpeg8_decode(self.chunk(patch), out=out[position])
            except (imagecodecs.Jpeg8Error, ValueError) as error:
                raise StoreError(
                    f"{self.folder}: patch {patch} cannot be decoded ({error}); rebuild this store"
                ) from error


class _Shard:
    """An open shard file: JPEG streams one after another, then where each starts and how long it is."""

    def __init__(self, path: Path, num_chunks: int) -> None:
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise StoreError(f"{path} cannot be opened ({error.strerror}); rebuild this store") from error
        index_bytes = 16 * num_chunks + _CRC_BYTES
        end = os.fstat(self._file.fileno()).st_size - index_bytes
        index = os.pread(self._file.fileno(), index_bytes, end) if end >= 0 else b""
        if crc32c(index) != _CRC_RESIDUE:
            raise StoreError(
                f"{path} is damaged, the checksum of its index does not match; rebuild this store"
            )
        self._path = path
        self._index = np.frombuffer(index, "<u8", 2 * num_chunks).reshape(num_chunks, 2)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def chunk(self, position: int) -> bytes:
        offset, num_bytes = self._index[position].tolist()
        try:
            return os.pread(self._file.fileno(), num_bytes, offset)
        except (OSError, OverflowError) as error:
            raise StoreError(f"{self._path} cannot be read ({error}); rebuild this store") from error


@functools.lru_cache(maxsize=OPEN_SHARDS)
def _open_shard(path: Path, num_chunks: int) -> _Shard:
    return _Shard(path, num_chunks)


@functools.lru_cache(maxsize=1)
def _pool(pid: int) -> ThreadPoolExecutor:
    # A forked child inherits this cache but not the threads: its own pid makes it start its own pool.
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="patches")


class StoreWriter:
    """Write a store patch by patch in bounded memory; it appears under its name only when whole.

    Patches go into a hidden folder beside ``path``, which is renamed when the ``with`` block ends and removed if it
    ends in an exception. A killed process leaves the hidden folder behind: see ``leftovers``.

    Args:
        path: the ``<slide>.zarr`` folder to make; it must not exist.
        mpp: µm per pixel of each scale, finest first; NaN where unknown.
        patch_size: side P of a patch in pixels.
        attributes: what to record about the slide and the settings; plain JSON values.
        quality: JPEG quality, 1 to 100.
        threads: encode on that many threads.

    Raises:
        StoreError: if the store exists already, or its folder cannot be written.
        ValueError: if an argument breaks its rule.
    """

    def __init__(
        self,
        path: str | Path,
        mpp: Sequence[float],
        *,
        patch_size: int,
        attributes: Mapping[str, Any] = MappingProxyType({}),
        quality: int = JPEG_QUALITY,
        threads: int = 1,
    ) -> None:
        self.path = Path(path)
        self._attributes = _json_attributes(attributes)
        known = [value for value in mpp if not math.isnan(value)]
        if known != sorted(known) or any(value <= 0 for value in known):
            raise ValueError(f"scales must be positive µm/px, finest first, not {list(mpp)}; sort them")
        if not 1 <= quality <= 100:
            raise ValueError(f"JPEG quality must lie in 1 to 100, not {quality}")
        self._mpp = [None if math.isnan(value) else float(value) for value in mpp]
        self._patch_size = patch_size
        self._quality = quality
        self._threads = threads
        self._images: dict[str, NDArray[Any]] = {}
        if self.path.exists():
            raise StoreError(f"{self.path} exists already; delete it first to write it anew")
        self._partial = self.path.with_name(
            f"{_partial_prefix(self.path)}{socket.gethostname()}-{os.getpid()}"
        )
        with _disk_errors(self.path):
            self._partial.mkdir(parents=True)
        self._scales = [_ScaleWriter(self._partial / str(scale) / "patches") for scale in range(len(mpp))]

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
            for scale in self._scales:
                scale.abandon()
            shutil.rmtree(self._partial, ignore_errors=True)

    def write(self, patches: NDArray[np.uint8], coords: NDArray[np.integer[Any]], scale: int = 0) -> None:
        """Append patches to a scale.

        Args:
            patches: RGB, shape (n, P, P, 3), any n.
            coords: level-0 (x, y) of each patch's top left corner, shape (n, 2); (-1, -1) where unknown.
            scale: index into ``mpp``.

        Raises:
            StoreError: if the disk is full or fails.
            ValueError: if a shape or dtype is wrong.
        """
        shape = (len(coords), self._patch_size, self._patch_size, 3)
        if patches.shape != shape or patches.dtype != np.uint8:
            raise ValueError(
                f"patches must be uint8 of shape {shape}, not {patches.dtype} of shape {patches.shape}"
            )
        if coords.shape != (len(coords), 2) or coords.dtype.kind not in "iu":
            raise ValueError(
                f"coords must be integers of shape (n, 2), not {coords.dtype} of shape {coords.shape}"
            )
        encode = functools.partial(_encode, quality=self._quality)
        encoded: Iterable[bytes] = (
            map(encode, patches) if self._threads == 1 else _pool(os.getpid()).map(encode, patches)
        )
        with _disk_errors(self.path):
            self._scales[scale].append(encoded, coords)

    def write_thumbnail(self, thumbnail: NDArray[np.uint8]) -> None:
        """Store the slide seen from afar, RGB, shape (h, w, 3)."""
        self._images["thumbnail"] = thumbnail

    def write_tissue(self, tissue: NDArray[np.bool_]) -> None:
        """Store the tissue mask over the whole slide, shape (h, w)."""
        self._images["tissue"] = tissue

    def _finish(self) -> None:
        for scale in self._scales:
            scale.finish()
        self._write_metadata()
        _write_checksum(self._partial / "zarr.json")
        for folder, _, files in os.walk(self._partial, topdown=False):
            for file in files:
                _sync(Path(folder, file))
            _sync(Path(folder))
        self._partial.rename(self.path)
        _sync(self.path.parent)

    def _write_metadata(self) -> None:
        header = {
            "format_version": FORMAT_VERSION,
            "patch_size": self._patch_size,
            "mpp": self._mpp,
            "jpeg_quality": self._quality,
        }
        group = zarr.create_group(self._partial, attributes={**self._attributes, _HEADER: header})
        jpeg = JpegCodec(level=self._quality, subsampling=JPEG_SUBSAMPLING)
        chunk = (1, self._patch_size, self._patch_size, 3)
        for number, scale in enumerate(self._scales):
            _create_array(
                group,
                f"{number}/patches",
                shape=(scale.num_patches, *chunk[1:]),
                chunks=chunk,
                shards=(scale.patches_per_shard, *chunk[1:]),
                dtype="uint8",
                serializer=jpeg,
                compressors=[Crc32cCodec()],
                attributes={"mpp": self._mpp[number]},
                dimension_names=("patch", "y", "x", "channel"),
            )
            coords = scale.coords()
            _create_array(
                group,
                f"{number}/coords",
                shape=coords.shape,
                chunks=(max(len(coords), 1), 2),
                dtype="int64",
                compressors=[Crc32cCodec()],
                dimension_names=("patch", "xy"),
            )[...] = coords
        if (thumbnail := self._images.get("thumbnail")) is not None:
            _create_array(
                group,
                "thumbnail",
                shape=thumbnail.shape,
                chunks=thumbnail.shape,
                dtype="uint8",
                serializer=jpeg,
                compressors=[Crc32cCodec()],
                dimension_names=("y", "x", "channel"),
            )[...] = thumbnail
        if (tissue := self._images.get("tissue")) is not None:
            _create_array(
                group,
                "tissue",
                shape=tissue.shape,
                chunks=tissue.shape,
                dtype="bool",
                compressors=[ZstdCodec(level=3), Crc32cCodec()],
                dimension_names=("y", "x"),
            )[...] = tissue
        with warnings.catch_warnings():
            # Consolidated metadata is a zarr-python extension; readers without it find the same in each zarr.json.
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            zarr.consolidate_metadata(group.store)


class _ScaleWriter:
    """Appends encoded patches to one shard file after another."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._file: BinaryIO | None = None
        self._index: list[tuple[int, int]] = []
        self._coords: list[NDArray[np.int64]] = []
        self.num_patches = 0

    @property
    def patches_per_shard(self) -> int:
        # A slide that fits into one shard gets an index of exactly its size.
        return min(max(self.num_patches, 1), PATCHES_PER_SHARD)

    def coords(self) -> NDArray[np.int64]:
        return np.concatenate([np.empty((0, 2), np.int64), *self._coords])

    def append(self, encoded: Iterable[bytes], coords: NDArray[np.integer[Any]]) -> None:
        for jpeg in encoded:
            if self._file is None:
                self._file = (self._folder / f"c.{self.num_patches // PATCHES_PER_SHARD}.0.0.0").open("xb")
            self._index.append((self._file.tell(), len(jpeg) + _CRC_BYTES))
            self._file.write(_with_crc(jpeg))
            self.num_patches += 1
            if len(self._index) == PATCHES_PER_SHARD:
                self._close_shard()
        self._coords.append(coords.astype(np.int64))

    def finish(self) -> None:
        """Close the last shard; the entries it lacks are marked empty as the format asks."""
        if self._file is not None:
            missing = self.patches_per_shard - len(self._index)
            self._index += [(2**64 - 1, 2**64 - 1)] * missing
            self._close_shard()

    def abandon(self) -> None:
        if self._file is not None:
            self._file.close()

    def _close_shard(self) -> None:
        assert self._file is not None
        self._file.write(_with_crc(np.array(self._index, "<u8").tobytes()))
        self._file.close()
        self._file = None
        self._index = []


def write_store(
    path: str | Path,
    scales: Mapping[float, tuple[NDArray[np.uint8], NDArray[np.integer[Any]] | None]],
    *,
    attributes: Mapping[str, Any] = MappingProxyType({}),
    quality: int = JPEG_QUALITY,
) -> PatchStore:
    """Write your own patches as a store.

    Args:
        path: the ``<slide>.zarr`` folder to make; it must not exist.
        scales: for each µm per pixel (NaN if unknown) the patches, RGB uint8 of shape (N, P, P, 3), and their level-0
            (x, y), shape (N, 2), or None where unknown.
        attributes: what to record; plain JSON values.
        quality: JPEG quality, 1 to 100.

    Raises:
        StoreError: if the store exists already or cannot be written.
        ValueError: if an argument breaks its rule.
    """
    finest_first = sorted(scales, key=lambda mpp: math.inf if math.isnan(mpp) else mpp)
    patch_size = scales[finest_first[0]][0].shape[1]
    with StoreWriter(
        path, finest_first, patch_size=patch_size, attributes=attributes, quality=quality
    ) as writer:
        for scale, mpp in enumerate(finest_first):
            patches, coords = scales[mpp]
            writer.write(patches, np.full((len(patches), 2), -1) if coords is None else coords, scale)
    return PatchStore(path)


def leftovers(path: str | Path) -> list[Path]:
    """Hidden folders that killed writers of this store left behind; safe to remove when none is at work."""
    path = Path(path)
    prefix = _partial_prefix(path)
    return sorted(found for found in path.parent.iterdir() if found.name.startswith(prefix))


def _partial_prefix(path: Path) -> str:
    return f".{path.name}.partial-"


def _encode(patch: NDArray[np.uint8], quality: int) -> bytes:
    jpeg: bytes = imagecodecs.jpeg8_encode(
        np.ascontiguousarray(patch), level=quality, subsampling=JPEG_SUBSAMPLING
    )
    return jpeg


def _create_array(group: zarr.Group, name: str, **settings: Any) -> zarr.Array:  # noqa: ANN401
    return group.create_array(
        name,
        filters=None,
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": "."},
        config={"write_empty_chunks": True},  # a missing file is damage, never "all zero"
        **settings,
    )


def _json_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    if _HEADER in attributes:
        raise ValueError(f"the attribute {_HEADER!r} is the store's own; choose another name")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(attributes), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"attributes must be plain JSON values ({error}); use None for an unknown number"
        ) from error
    return plain


def _read_metadata(path: Path) -> dict[str, Any]:
    """The root ``zarr.json``, if it is one of ours and unharmed."""
    try:
        metadata: dict[str, Any] = json.loads((path / "zarr.json").read_bytes())
        header = metadata["attributes"][_HEADER]
        version, stored = header["format_version"], header["crc32c"]
    except OSError as error:
        raise StoreError(
            f"no patch store at {path} ({error.strerror}); run `e2e-abmilx cache` first"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is not a patch store, or its zarr.json is damaged; rebuild it") from error
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version} and this release reads {FORMAT_VERSION}; "
            "rebuild it or install the release that wrote it"
        )
    if _metadata_crc(metadata) != stored:
        raise StoreError(
            f"{path}: zarr.json was edited or damaged, its checksum does not match; rebuild this store"
        )
    return metadata


def _write_checksum(path: Path) -> None:
    metadata = json.loads(path.read_bytes())
    metadata["attributes"][_HEADER]["crc32c"] = _metadata_crc(metadata)
    path.write_text(json.dumps(metadata, indent=2), encoding="utf-8")


def _metadata_crc(metadata: dict[str, Any]) -> str:
    """crc32c of the metadata as sorted, compact JSON without the checksum's own entry."""
    header = {key: value for key, value in metadata["attributes"][_HEADER].items() if key != "crc32c"}
    bare = {**metadata, "attributes": {**metadata["attributes"], _HEADER: header}}
    return f"{crc32c(json.dumps(bare, sort_keys=True, separators=(',', ':')).encode()):08x}"


def _with_crc(data: bytes) -> bytes:
    checksum: int = crc32c(data)
    return data + checksum.to_bytes(_CRC_BYTES, "little")


def _read_checked(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); rebuild this store") from error
    if crc32c(data) != _CRC_RESIDUE:
        raise StoreError(f"{path} is damaged, its checksum does not match; rebuild this store")
    return data[:-_CRC_BYTES]


def _problems(read: Any) -> Iterator[str]:  # noqa: ANN401
    try:
        read()
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
            f"{path} cannot be written ({error.strerror}); free some space or choose another folder, then run again"
        ) from error
