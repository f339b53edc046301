"""The shard files of one scale, written patch by patch."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.store.format import ABSENT, CRC_BYTES, with_crc

PATCHES_PER_SHARD = 4096  # about 100 MB, so that a large slide is about a dozen files


class ScaleWriter:
    """The writer of one scale: it appends encoded patches to one shard file after another.

    Args:
        folder: Where the shard files go; it must not exist.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._file: BinaryIO | None = None
        self._index: list[tuple[int, int]] = []
        self._coords = [np.empty((0, 2), np.int64)]
        self.num_patches = 0

    @property
    def patches_per_shard(self) -> int:
        """Number S of patches per shard; a scale that fits into one shard gets an index of exactly its size."""
        return min(max(self.num_patches, 1), PATCHES_PER_SHARD)

    def coords(self) -> NDArray[np.int64]:
        """Return the coordinates of all patches so far, shape (N, 2)."""
        return np.concatenate(self._coords)

    def append(self, encoded: Iterable[bytes], coords: NDArray[np.integer[Any]]) -> None:
        """Append n JPEG streams and their coordinates, shape (n, 2)."""
        for jpeg in encoded:
            if self._file is None:
                self._file = (self._folder / f"c.{self.num_patches // PATCHES_PER_SHARD}.0.0.0").open("xb")
            self._index.append((self._file.tell(), len(jpeg) + CRC_BYTES))
            self._file.write(with_crc(jpeg))
            self.num_patches += 1
            if len(self._index) == PATCHES_PER_SHARD:
                self._finish_shard(self._file)
        self._coords.append(coords.astype(np.int64))

    def finish(self) -> None:
        """Complete the last shard with its index."""
        if self._file is not None:
            self._index += [(ABSENT, ABSENT)] * (self.patches_per_shard - len(self._index))
            self._finish_shard(self._file)

    def abandon(self) -> None:
        """Close the shard that is open, if any, without completing it."""
        if self._file is not None:
            with suppress(OSError):  # closing flushes, which fails once more on a full disk
                self._file.close()

    def _finish_shard(self, file: BinaryIO) -> None:
        file.write(with_crc(np.array(self._index, "<u8").tobytes()))
        file.close()
        self._file = None
        self._index = []
