"""Write patch stores."""

import functools
import itertools
import math
import os
import shutil
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import imagecodecs
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from e2e_abmilx.store.codec import JPEG_QUALITY, JpegCodec, Subsampling, encode_patch, jpeg_shape
from e2e_abmilx.store.format import (
    FORMAT_VERSION,
    HEADER,
    StoreError,
    add_metadata_checksum,
    create_array,
    plain_json,
    write_array,
)
from e2e_abmilx.store.reader import PatchStore
from e2e_abmilx.store.scale_writer import ScaleWriter

_BATCH = 1024  # patches encoded ahead of the disk


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
        self._attributes = plain_json(attributes)
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
                ScaleWriter(self._partial / str(number) / "patches") for number in range(len(mpp))
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
        add_metadata_checksum(self._partial / "zarr.json")
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
        root = zarr.create_group(self._partial, attributes={**self._attributes, HEADER: header})
        jpeg = JpegCodec(level=self._quality, subsampling=self._subsampling)
        patch = (self._patch_size, self._patch_size, 3)
        for number, scale in enumerate(self._scales):
            create_array(
                root,
                f"{number}/patches",
                ("patch", "y", "x", "channel"),
                dtype="uint8",
                shape=(scale.num_patches, *patch),
                shards=(scale.patches_per_shard, *patch),
                chunks=(1, *patch),
                serializer=jpeg,
            )
            write_array(root, f"{number}/coords", scale.coords(), ("patch", "xy"))
        if self._thumbnail is not None:
            write_array(root, "thumbnail", self._thumbnail, ("y", "x", "channel"), serializer=jpeg)
        if self._tissue is not None:
            write_array(
                root, "tissue", self._tissue, ("y", "x"), compressors=[ZstdCodec(level=3), Crc32cCodec()]
            )
        with warnings.catch_warnings():
            # It warns that this is its own extension; readers that do not know it read each zarr.json.
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            zarr.consolidate_metadata(root.store)


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
