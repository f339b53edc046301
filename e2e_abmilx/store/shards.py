"""Random reads of the shard files of one scale."""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import imagecodecs
import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.store.format import ABSENT, CRC_BYTES, CRC_RESIDUE, StoreError, problems_of

OPEN_SHARDS = 128  # file handles a process keeps: far below the usual limit of 1024, and reopening is cheap


@dataclass(frozen=True, kw_only=True)
class ScaleReader:
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
            if crc32c(data) != CRC_RESIDUE:
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
            if broken := list(problems_of(functools.partial(self.shard, first // self.patches_per_shard))):
                yield from broken
                continue
            for patch in range(first, min(first + self.patches_per_shard, self.num_patches)):
                yield from problems_of(functools.partial(self.decode, [patch], pixels))

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
        num_bytes = 16 * num_chunks + CRC_BYTES
        start = os.fstat(self._file.fileno()).st_size - num_bytes
        index = os.pread(self._file.fileno(), num_bytes, start) if start >= 0 else b""
        if crc32c(index) != CRC_RESIDUE:
            raise ValueError(f"the checksum of the index of {path} does not match")
        self._index = np.frombuffer(index, "<u8", 2 * num_chunks).reshape(num_chunks, 2)
        if (self._index[self._index[:, 0] != ABSENT] > start).any():
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
