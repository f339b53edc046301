"""The files of a store: on a local disk, or in object storage."""

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.store import objects
from e2e_abmilx.store.disk_cache import DiskCache
from e2e_abmilx.store.format import (
    CRC_BYTES,
    HEADER,
    StoreError,
    parse_index,
    parse_metadata,
    patches_per_shard,
    shard_name,
    without_crc,
)
from e2e_abmilx.store.locations import Location, ObjectUrl
from e2e_abmilx.store.object_errors import PUSH_AGAIN, AccessError
from e2e_abmilx.store.object_scale import ObjectScale
from e2e_abmilx.store.scale_reader import LocalScale, ScaleReader
from e2e_abmilx.store.summary import SUMMARY, Summary, parse_summary

OPEN_OBJECT_STORES = 64  # whose metadata, coords and indexes a process keeps: up to 1.6 MB each for the largest slides


class LocalFiles:
    """The files of a store in a local folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with (path / "zarr.json").open("rb") as file:
                self._modified_ns = os.fstat(file.fileno()).st_mtime_ns
                data = file.read()
        except OSError as error:
            raise StoreError(f"no patch store at {path} ({error.strerror}); run `e2e-abmilx cache` first") from error
        self.metadata = parse_metadata(data, path)

    def read(self, name: str) -> bytes:
        """Return the content of a file; refuse a missing one."""
        try:
            return (self._path / name).read_bytes()
        except OSError as error:
            raise StoreError(f"{self._path / name} cannot be read: {error.strerror}; rebuild this store") from error

    def coords(self, number: int) -> NDArray[np.int64]:
        """Return the coordinates of the patches of a scale that has some, shape (N, 2)."""
        return _coords_of(self, number, self._path)

    def scale(self, number: int, num_patches: int, patches_per_shard: int, disk: DiskCache | None) -> ScaleReader:
        """Return the reader of a scale; what is on a local disk is not kept on one again."""
        return LocalScale(
            store=self._path,
            number=number,
            num_patches=num_patches,
            patches_per_shard=patches_per_shard,
            modified_ns=self._modified_ns,
        )


class ObjectFiles:
    """The files of a store in object storage.

    A pushed store is opened by one GET, of its summary. Without a summary, each array of coordinates and the index of
    each shard takes one more when it is first needed.
    """

    def __init__(self, url: ObjectUrl) -> None:
        self._url = url
        self._coords: dict[int, NDArray[np.int64]] = {}
        self._indexes: dict[str, NDArray[np.uint64]] = {}
        summary = self._summary()
        data = objects.get(url.parent, f"{url.name}/zarr.json") if summary is None else summary.metadata
        if data is None:
            raise StoreError(f"no patch store at {url}; check the URL, or run `e2e-abmilx push` first")
        self.metadata: dict[str, Any] = parse_metadata(data, url)
        if summary is not None:
            self._keep(summary)

    def read(self, name: str) -> bytes:
        """Return the content of an object; refuse a missing one."""
        data = objects.get(self._url.parent, f"{self._url.name}/{name}")
        if data is None:
            raise StoreError(f"{self._url / name} is missing; {PUSH_AGAIN}")
        return data

    def coords(self, number: int) -> NDArray[np.int64]:
        """Return the coordinates of the patches of a scale that has some, shape (N, 2)."""
        if number not in self._coords:
            self._coords[number] = _coords_of(self, number, self._url)
        return self._coords[number].copy()

    def index(self, name: str, num_chunks: int) -> NDArray[np.uint64]:
        """Return the offset and length of each patch of a shard, shape (num_chunks, 2)."""
        if name not in self._indexes:
            num_bytes = 16 * num_chunks + CRC_BYTES
            data, size = objects.get_tail(self._url.parent, f"{self._url.name}/{name}", num_bytes)
            try:
                self._indexes[name] = parse_index(data, num_chunks, size - num_bytes, self._url / name)
            except ValueError as error:
                raise StoreError(f"{error}; {PUSH_AGAIN}") from error
        return self._indexes[name]

    def scale(self, number: int, num_patches: int, patches_per_shard: int, disk: DiskCache | None) -> ScaleReader:
        """Return the reader of a scale."""
        return ObjectScale(
            store=self._url,
            number=number,
            num_patches=num_patches,
            patches_per_shard=patches_per_shard,
            find=self.index,
            forget=forget_objects,
            checksum=self.metadata["attributes"][HEADER]["crc32c"],
            disk=disk,
        )

    def _summary(self) -> Summary | None:
        name = f"{self._url.name}/{SUMMARY}"
        for attempt in range(2):  # damage in transit is gone the second time
            try:
                data = objects.get(self._url.parent, name)
                return None if data is None else parse_summary(data, self._url / SUMMARY)
            except AccessError:
                return None  # S3 forbids to read what does not exist, unless one may list the bucket
            except StoreError:
                if attempt:
                    raise
        return None

    def _keep(self, summary: Summary) -> None:
        """Keep the coordinates and the indexes of all shards."""
        for number, (coords, lengths) in enumerate(zip(summary.coords, summary.lengths, strict=True)):
            self._coords[number] = coords
            size = patches_per_shard(self.metadata, number)
            for shard, start in enumerate(range(0, len(lengths), size)):
                own = lengths[start : start + size].astype(np.uint64)
                offsets = np.cumsum(own) - own
                self._indexes[shard_name(number, shard)] = np.stack([offsets, own], axis=1)


def open_files(location: Location) -> LocalFiles | ObjectFiles:
    """Return the files of a store; those of object storage are opened once per process and kept for a while."""
    return _open_objects(location) if isinstance(location, ObjectUrl) else LocalFiles(location)


def forget_objects() -> None:
    """Open stores in object storage anew from now on, because one of them has changed."""
    _open_objects.cache_clear()


@functools.lru_cache(maxsize=OPEN_OBJECT_STORES)
def _open_objects(url: ObjectUrl) -> ObjectFiles:
    return ObjectFiles(url)


def _coords_of(files: LocalFiles | ObjectFiles, number: int, where: Location) -> NDArray[np.int64]:
    name = f"{number}/coords/c.0.0"
    return np.frombuffer(without_crc(files.read(name), where / name), "<i8").reshape(-1, 2).astype(np.int64)
