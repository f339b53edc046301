"""The summary of a pushed store: all that a reader needs besides the patches, in one small object (see ``FORMAT.md``)."""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.store.format import with_crc, without_crc

SUMMARY = "e2e_abmilx.summary"
_VERSION = 1
_HEAD = struct.Struct("<II")  # version, bytes of zarr.json


class Summary(NamedTuple):
    """The content of a summary.

    Attributes:
        metadata: The group's ``zarr.json``, byte for byte.
        coords: Of each scale, the coordinates of its patches, int64, shape (N, 2).
        lengths: Of each scale, the stored bytes of each patch, with its crc32c, uint32, shape (N,). The patches of a
            shard follow one another from its first byte on.
    """

    metadata: bytes
    coords: Sequence[NDArray[np.int64]]
    lengths: Sequence[NDArray[np.uint32]]


def pack_summary(summary: Summary) -> bytes:
    """Return a summary as the bytes of its object."""
    parts = [_HEAD.pack(_VERSION, len(summary.metadata)), summary.metadata]
    for coords, lengths in zip(summary.coords, summary.lengths, strict=True):
        parts += [struct.pack("<I", len(lengths)), _planes(coords.astype("<i8")), _planes(lengths.astype("<u4"))]
    return with_crc(bytes(imagecodecs.zstd_encode(b"".join(parts), level=9)))


def parse_summary(data: bytes, where: object) -> Summary | None:
    """Return the content of a summary; None if it is of a later version.

    Raises:
        StoreError: It is damaged.
    """
    content = memoryview(imagecodecs.zstd_decode(without_crc(data, where)))
    version, num_bytes = _HEAD.unpack_from(content)
    if version != _VERSION:
        return None
    start = _HEAD.size + num_bytes
    metadata = bytes(content[_HEAD.size : start])
    coords, lengths = [], []
    while start < len(content):
        (count,) = struct.unpack_from("<I", content, start)
        start += 4
        coords.append(_from_planes(content[start : start + 16 * count], "<i8").reshape(count, 2))
        lengths.append(_from_planes(content[start + 16 * count : start + 20 * count], "<u4"))
        start += 20 * count
    return Summary(metadata, coords, lengths)


def _planes(numbers: NDArray[Any]) -> bytes:
    """Return the lowest bytes of all numbers, then the second lowest, and so on, which compress far better."""
    return np.ascontiguousarray(numbers).reshape(-1, 1).view(np.uint8).T.tobytes()


def _from_planes(data: memoryview, kind: str) -> NDArray[Any]:
    size = np.dtype(kind).itemsize
    return np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(size, -1).T).view(kind)[:, 0]
