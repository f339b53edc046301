"""``StoreWriter``, which makes a store patch by patch, and ``write_store`` for patches in memory."""

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

_BATCH = 1024  # patches that are encoded before they are written


class StoreWriter:
    """Write one slide's store in bounded memory.

    Use it in a ``with`` block. Everything goes into a hidden folder next to ``path``, which is renamed to it when the
    block ends and removed if the block raises. A killed process leaves the hidden folder behind; ``leftovers``
    finds it.

    Args:
        path: The ``<slide>.zarr`` folder to make; it must not exist.
        mpp: µm per pixel of each scale, finest first; NaN where unknown.
        patch_size: Side P of a patch in pixels.
        attributes: What to record about the slide and the settings: plain JSON values, None for an unknown number.
        quality: JPEG quality, 1 to 100.
        subsampling: JPEG chroma subsampling; ``"420"`` saves a third of the bytes and costs 4 to 5 dB on slides
            whose colour is as sharp as their brightness (``benchmarks/store_quality.py``).
        threads: Threads that encode.

    Raises:
        StoreError: If the store exists already, or its parent cannot be written.
        ValueError: If an argument is out of range.
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
            raise ValueError(f"mpp is {list(mpp)}; scales must be positive µm/px, finest first: sort them")
        if not 1 <= quality <= 100:
            raise ValueError(f"quality is {quality}; JPEG quality must lie in 1 to 100")
        self.path = Path(path)
        self._patch = (patch_size, patch_size, 3)
        self._codec = JpegCodec(level=quality, subsampling=subsampling)
        self._encode = functools.partial(encode_patch, quality=quality, subsampling=subsampling)
        header = {
            "format_version": FORMAT_VERSION,
            "patch_size": patch_size,
            "mpp": [None if math.isnan(value) else float(value) for value in mpp],
            "jpeg_quality": quality,
            "jpeg_subsampling": subsampling,
        }
        self._attributes = {**plain_json(attributes), HEADER: header}
        self._pool = ThreadPoolExecutor(threads)
        self._thumbnail: NDArray[np.uint8] | None = None
        self._tissue: NDArray[np.bool_] | None = None
        if self.path.exists():
            raise StoreError(f"{self.path} exists already; delete it to write it again")
        self._partial = self.path.with_name(f"{_partial_prefix(self.path)}{socket.gethostname()}-{os.getpid()}")
        with _disk_errors(self.path):
            self._partial.mkdir(parents=True)
            self._scales = [ScaleWriter(self._partial / f"{number}/patches") for number in range(len(mpp))]

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
        """Append patches to a scale; scales may be written in any order.

        Args:
            patches: RGB, shape (n, P, P, 3), any n.
            coords: Level-0 (x, y) of each patch's top left corner, shape (n, 2); (-1, -1) where unknown.
            scale: Index into ``mpp``.

        Raises:
            StoreError: If the disk is full or fails.
            ValueError: If a shape or a dtype is wrong.
        """
        shape = (len(coords), *self._patch)
        if patches.shape != shape or patches.dtype != np.uint8:
            raise ValueError(f"patches must be uint8 of {shape}, not {patches.dtype} of {patches.shape}")
        self._append(self._pool.map(self._encode, patches), coords, scale)

    def write_encoded(self, jpegs: Iterable[bytes], coords: NDArray[np.integer[Any]], scale: int = 0) -> None:
        """Append patches that are JPEG streams already, unchanged, because encoding them again would lose quality.

        Each stream is decoded once, so that a broken one is reported now and not when it is read. The quality and
        subsampling that a store records do not describe these patches.

        Args:
            jpegs: n baseline JPEG streams of P × P pixels in three components, consumed one at a time.
            coords: As in :meth:`write`.
            scale: Index into ``mpp``.

        Raises:
            StoreError: If a stream is of another kind or broken, or the disk is full or fails.
            ValueError: If the coordinates have a wrong shape or dtype, or their number differs from the streams'.
        """
        before = self._scales[scale].num_patches
        self._append(map(self._checked, jpegs, itertools.count(before)), coords, scale)
        if (written := self._scales[scale].num_patches - before) != len(coords):
            raise ValueError(f"there are {written} JPEG streams for {len(coords)} coords; give one per patch")

    def write_thumbnail(self, thumbnail: NDArray[np.uint8]) -> None:
        """Set the thumbnail of the whole slide, RGB, shape (h, w, 3)."""
        self._thumbnail = thumbnail

    def write_tissue(self, tissue: NDArray[np.bool_]) -> None:
        """Set the tissue mask of the whole slide, shape (h, w)."""
        self._tissue = tissue

    def _append(self, jpegs: Iterable[bytes], coords: NDArray[np.integer[Any]], scale: int) -> None:
        if coords.shape[1:] != (2,) or coords.dtype.kind not in "iu":
            raise ValueError(f"coords must be integers of (n, 2), not {coords.dtype} of {coords.shape}")
        with _disk_errors(self.path):
            self._scales[scale].append(jpegs, coords)

    def _checked(self, jpeg: bytes, patch: int) -> bytes:
        """Return a JPEG stream once it is found to be baseline, of P × P pixels, and whole."""
        try:
            if (shape := jpeg_shape(jpeg)) != self._patch:
                raise ValueError(f"its shape is {shape}, not {self._patch}")
            imagecodecs.jpeg8_decode(jpeg, out=np.empty(self._patch, np.uint8))
        except (imagecodecs.Jpeg8Error, ValueError) as error:
            raise StoreError(
                f"the JPEG stream of patch {patch} cannot go into {self.path} unchanged: {error};"
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
        """Write everything but the shards, through zarr-python."""
        root = zarr.create_group(self._partial, attributes=self._attributes)
        for number, scale in enumerate(self._scales):
            create_array(
                root,
                f"{number}/patches",
                ("patch", "y", "x", "channel"),
                dtype="uint8",
                shape=(scale.num_patches, *self._patch),
                shards=(scale.patches_per_shard, *self._patch),
                chunks=(1, *self._patch),
                serializer=self._codec,
            )
            write_array(root, f"{number}/coords", scale.coords(), ("patch", "xy"))
        if self._thumbnail is not None:
            write_array(root, "thumbnail", self._thumbnail, ("y", "x", "channel"), serializer=self._codec)
        if self._tissue is not None:
            codecs = [ZstdCodec(level=3), Crc32cCodec()]
            write_array(root, "tissue", self._tissue, ("y", "x"), compressors=codecs)
        with warnings.catch_warnings():
            # zarr warns that this is an extension of its own; readers that lack it read each zarr.json
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
    """Write your own patches as a store; the other options are those of `StoreWriter`.

    Args:
        path: The ``<slide>.zarr`` folder to make; it must not exist.
        scales: For each µm per pixel (NaN where unknown) the patches, RGB uint8 of shape (N, P, P, 3), and
            the level-0 (x, y) of their top left corners, shape (N, 2), or None where unknown.
        attributes: What to record about the slide.
        quality: JPEG quality.
        subsampling: JPEG chroma subsampling.

    Raises:
        StoreError: If the store exists already or cannot be written.
        ValueError: If an argument is out of range.
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
    """Return the hidden folders that killed writers of a store left behind; running writers have one each, too."""
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
    """Turn an OSError of the block into a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error};"
            " free some space, remove what is in the way or choose another folder, then run again"
        ) from error
