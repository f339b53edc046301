"""Random reads from the shard files of one scale."""

import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from typing import ClassVar

import imagecodecs
import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.store.format import CRC_BYTES, CRC_RESIDUE, StoreError, parse_index, problems_of
from e2e_abmilx.store.locations import Location

_TOGETHER = 64  # patches that are checked at once: in object storage, they are one request
OPEN_SHARDS = 128  # open files per process: far below the usual limit of 1024, and reopening is cheap


@dataclass(frozen=True, kw_only=True)
class ScaleReader(ABC):
    """The patches of one scale: scale ``number`` of the ``store`` at a location."""

    cure: ClassVar[str] = "rebuild this store"

    store: Location
    number: int
    num_patches: int
    patches_per_shard: int

    def __str__(self) -> str:
        return f"{self.store}, scale {self.number}"

    @abstractmethod
    def chunks(self, wanted: Iterable[int]) -> Iterator[bytes]:
        """Yield the stored bytes of each patch, a JPEG stream and its crc32c; refuse a missing or damaged patch."""

    @abstractmethod
    def index(self, shard: int) -> NDArray[np.uint64]:
        """Return the offset and length of each patch of a shard, shape (S, 2)."""

    def lengths(self) -> NDArray[np.int64]:
        """Return the stored bytes of each patch, shape (N,)."""
        shards = range(-(-self.num_patches // self.patches_per_shard))
        lengths = [np.empty(0, np.int64), *(self.index(shard)[:, 1].astype(np.int64) for shard in shards)]
        return np.concatenate(lengths)[: self.num_patches]

    def patches_of(self, shard: int) -> str:
        """Return for example ``patches 0 to 4095``."""
        first = shard * self.patches_per_shard
        return f"patches {first} to {min(first + self.patches_per_shard, self.num_patches) - 1}"

    def checked(self, indices: ArrayLike) -> list[int]:
        """Return patch indices as a list; refuse all but a flat list of integers in 0 to N - 1."""
        wanted = np.asarray(indices)
        if wanted.size == 0:
            return []
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
            raise TypeError(f"patch indices must be a flat list of integers, not {wanted.dtype} of {wanted.shape}")
        if wanted.min() < 0 or wanted.max() >= self.num_patches:
            raise IndexError(
                f"patch indices of {self} run from 0 to {self.num_patches - 1}, not {wanted.min()} to {wanted.max()}"
            )
        patches: list[int] = wanted.tolist()
        return patches

    def decode(self, wanted: Sequence[int], out: NDArray[np.uint8]) -> None:
        """Decode n patches into ``out``, shape (n, P, P, 3); refuse a missing or damaged patch."""
        for patch, data, pixels in zip(wanted, self.chunks(wanted), out, strict=True):
            try:
                imagecodecs.jpeg8_decode(data, out=pixels)
            except (imagecodecs.Jpeg8Error, ValueError) as error:
                raise self._error(f"patch {patch} cannot be decoded: {error}") from error

    def problems(self, patch_size: int) -> Iterator[str]:
        """Decode every patch; yield one sentence per damaged patch, and one per shard that cannot be opened."""
        pixels = np.empty((_TOGETHER, patch_size, patch_size, 3), np.uint8)
        for first in range(0, self.num_patches, self.patches_per_shard):
            if broken := list(problems_of(functools.partial(self.index, first // self.patches_per_shard))):
                yield from broken
                continue
            last = min(first + self.patches_per_shard, self.num_patches)
            for start in range(first, last, _TOGETHER):
                patches = range(start, min(start + _TOGETHER, last))
                if list(problems_of(functools.partial(self.decode, patches, pixels[: len(patches)]))):
                    for patch in patches:
                        yield from problems_of(functools.partial(self.decode, [patch], pixels[:1]))

    def _error(self, problem: str) -> StoreError:
        return StoreError(f"{self}, {problem}; {self.cure}")


@dataclass(frozen=True, kw_only=True)
class LocalScale(ScaleReader):
    """The patches of one scale of a store in a local folder, written at ``modified_ns``."""

    modified_ns: int

    def chunks(self, wanted: Iterable[int]) -> Iterator[bytes]:
        """Yield the stored bytes of each patch."""
        for patch in wanted:
            number, position = divmod(patch, self.patches_per_shard)
            shard = self._shard(number)
            try:
                data = shard.chunk(position)
            except (OSError, OverflowError) as error:
                raise self._error(f"patch {patch} cannot be read: {error}") from error
            if crc32c(data) != CRC_RESIDUE:
                raise self._error(f"patch {patch} is damaged: its checksum does not match")
            yield data

    def index(self, shard: int) -> NDArray[np.uint64]:
        """Return the index of a shard."""
        return self._shard(shard).index

    def _shard(self, number: int) -> "_Shard":
        path = f"{self.store}/{self.number}/patches/c.{number}.0.0.0"
        try:
            return _open_shard(path, self.patches_per_shard, self.modified_ns)
        except (OSError, ValueError) as error:
            raise self._error(f"{self.patches_of(number)} cannot be read: {error}") from error


class _Shard:
    """An open shard file: chunks one after another, followed by an index of their offsets and lengths.

    It is read with ``pread`` rather than through a memory map: the call is negligible next to decoding a JPEG; a
    cold read fetches the whole patch at once, where a map fetches page by page; a map's pages would add to the
    process's memory; and a failing disk raises an error, where a map would kill the process.
    """

    def __init__(self, path: str, num_chunks: int) -> None:
        self._file = FileIO(path)
        num_bytes = 16 * num_chunks + CRC_BYTES
        start = os.fstat(self._file.fileno()).st_size - num_bytes
        index = os.pread(self._file.fileno(), num_bytes, start) if start >= 0 else b""
        self.index = parse_index(index, num_chunks, start, path)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def chunk(self, position: int) -> bytes:
        offset, num_bytes = self.index[position].tolist()
        return os.pread(self._file.fileno(), num_bytes, offset)


@functools.lru_cache(maxsize=OPEN_SHARDS)
def _open_shard(path: str, num_chunks: int, modified_ns: int) -> _Shard:
    """Open a shard, or return it if it is open; ``modified_ns`` tells apart stores rebuilt at the same path."""
    return _Shard(path, num_chunks)
