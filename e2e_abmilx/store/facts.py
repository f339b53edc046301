"""``StoreFacts``, what a cohort needs to know of a store without opening it, and the bytes that hold those of many."""

import functools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import imagecodecs
from google_crc32c import value as crc32c

from e2e_abmilx.store.format import CRC_BYTES, CRC_RESIDUE, FORMAT_VERSION, HEADER, StoreError, with_crc
from e2e_abmilx.store.reader import PatchStore

#: A reader takes only bytes of its own versions: a store that it would refuse must not be known from an index.
_VERSIONS = {"index_version": 1, "format_version": FORMAT_VERSION}


@dataclass(frozen=True)
class StoreFacts:
    """What a store holds; all of it follows from the store's ``zarr.json``.

    Attributes:
        name: Name of the slide.
        scales: µm per pixel of each scale, finest first; NaN where unknown.
        patch_size: Side P of a patch in pixels.
        counts: Number N of patches of each scale.
        checksum: crc32c of the metadata, by which a store that was rebuilt is told from the one that was.
        attributes_json: The attributes of the store as JSON.
        stamp: Inode, size, mtime and ctime in ns of the ``zarr.json`` that was read; empty where there are no files.
    """

    name: str
    scales: tuple[float, ...]
    patch_size: int
    counts: tuple[int, ...]
    checksum: str
    attributes_json: str
    stamp: tuple[int, ...] = ()

    @classmethod
    def of(cls, store: PatchStore, stamp: tuple[int, ...] = ()) -> Self:
        """Return the facts of an open store."""
        counts = tuple(store.num_patches(scale) for scale in range(len(store.scales)))
        attributes = json.dumps(dict(store.attributes), separators=(",", ":"))
        return cls(store.name, store.scales, store.patch_size, counts, store.checksum, attributes, stamp)

    @classmethod
    def from_metadata(cls, name: str, metadata: Mapping[str, Any]) -> Self:
        """Return the facts of a store by the content of its ``zarr.json``."""
        attributes = dict(metadata["attributes"])
        header = attributes.pop(HEADER)
        scales = tuple(math.nan if mpp is None else mpp for mpp in header["mpp"])
        nodes = metadata["consolidated_metadata"]["metadata"]
        counts = tuple(nodes[f"{scale}/patches"]["shape"][0] for scale in range(len(scales)))
        text = json.dumps(attributes, separators=(",", ":"))
        return cls(name, scales, header["patch_size"], counts, header["crc32c"], text)

    @functools.cached_property
    def attributes(self) -> Mapping[str, Any]:
        """What the builder of the store recorded, as :attr:`PatchStore.attributes`."""
        return MappingProxyType(json.loads(self.attributes_json))


def encode_index(stores: Iterable[StoreFacts]) -> bytes:
    """Return the bytes of the cohort index of stores: zstd-compressed JSON, followed by its crc32c; see ``FORMAT.md``."""
    rows = [
        [
            facts.name,
            [None if math.isnan(mpp) else mpp for mpp in facts.scales],
            facts.patch_size,
            facts.counts,
            facts.checksum,
            facts.attributes_json,
            facts.stamp,
        ]
        for facts in sorted(stores, key=lambda facts: facts.name)
    ]
    text = json.dumps({**_VERSIONS, "stores": rows}, separators=(",", ":"), allow_nan=False)
    return with_crc(bytes(imagecodecs.zstd_encode(text.encode(), level=3)))


def decode_index(data: bytes) -> dict[str, StoreFacts]:
    """Return the facts of each store of a cohort index, by name.

    Raises:
        StoreError: The bytes are damaged, or those of another version.
    """
    try:
        if crc32c(data) != CRC_RESIDUE:
            raise ValueError("its checksum does not match")
        content = json.loads(imagecodecs.zstd_decode(data[:-CRC_BYTES]))
        if (found := {name: content[name] for name in _VERSIONS}) != _VERSIONS:
            raise ValueError(f"its versions are {found}, and this release reads {_VERSIONS}")
        return {row[0]: _facts(*row) for row in content["stores"]}
    except (ValueError, KeyError, TypeError, imagecodecs.ZstdError) as error:
        raise StoreError(f"the cohort index cannot be used: {error}; make it again") from error


def _facts(
    name: str,
    mpp: list[float | None],
    patch_size: int,
    counts: list[int],
    checksum: str,
    attributes: str,
    stamp: list[int],
) -> StoreFacts:
    # math.nan itself, as in PatchStore: tuples that hold the same NaN object are equal
    scales = tuple(math.nan if value is None else value for value in mpp)
    return StoreFacts(name, scales, patch_size, tuple(counts), checksum, attributes, tuple(stamp))
