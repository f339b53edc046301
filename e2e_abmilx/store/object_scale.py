"""Random reads of the patches of one scale in object storage.

What a disk cache keeps are blocks of 16 patches, about 0.5 MB, beginning at multiples of 16. Whole shards would not do:
a bag of 512 patches (17 MB) of a slide of 0.5 GB would fetch thirty times what it needs. The ranges asked for would not
do either: runs begin at random positions, so hardly any range is asked for twice. A run of 64 patches touches 4.9
blocks on average, so where nothing is cached yet it fetches (64 + 15) / 64 = 1.23 times what it needs, in the same
number of requests; a patch drawn by itself fetches 16 times what it needs. Single patches would fetch no more than they
need, but 30 million files per TB, instead of 2 million, are too many for a file system. A slide's summary is not kept:
reading it tells whether the store is still the same.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from e2e_abmilx.store.disk_cache import DiskCache
from e2e_abmilx.store.format import ABSENT, CRC_RESIDUE, StoreError, shard_name
from e2e_abmilx.store.locations import ObjectUrl
from e2e_abmilx.store.object_errors import PUSH_AGAIN
from e2e_abmilx.store.objects import Range, fetch
from e2e_abmilx.store.scale_reader import ScaleReader

BLOCK = 16  # patches of an entry of a disk cache
LARGEST_GET = 16 * 2**20  # bytes; longer runs of patches are asked for in parts, at the same time


@dataclass(frozen=True, kw_only=True)
class ObjectScale(ScaleReader):
    """The patches of one scale of a store in object storage.

    Attributes:
        store: The URL of the store.
        find: Returns the index of a shard, offset and length of each patch, shape (S, 2).
        checksum: That of the store's metadata, which tells stores apart that lie at the same place one after the other.
        disk: Where blocks of patches are kept, if anywhere.
        forget: Called when a patch stays damaged: the index, read earlier, may be that of a store that was replaced.
    """

    cure: ClassVar[str] = PUSH_AGAIN

    store: ObjectUrl
    find: Callable[[str, int], NDArray[np.uint64]]
    forget: Callable[[], None]
    checksum: str
    disk: DiskCache | None

    def chunks(self, wanted: Iterable[int]) -> Iterator[bytes]:
        """Yield the stored bytes of each patch, all asked for together; one that arrives damaged is asked for again."""
        wanted = list(wanted)
        places = {patch: self._place(patch) for patch in wanted}
        found = self._fetch(places) if self.disk is None else self._fetch_blocks(self.disk, places)
        for patch in wanted:
            if crc32c(found[patch]) != CRC_RESIDUE:
                found[patch] = self._fetch({patch: places[patch]})[patch]
                if crc32c(found[patch]) != CRC_RESIDUE:
                    self.forget()
                    raise self._error(f"patch {patch} is damaged: its checksum does not match, asked for twice")
            yield found[patch]

    def index(self, shard: int) -> NDArray[np.uint64]:
        """Return the index of a shard."""
        try:
            return self.find(shard_name(self.number, shard), self.patches_per_shard)
        except StoreError as error:
            raise type(error)(f"{self}, {self.patches_of(shard)} cannot be read: {error}") from error

    def _place(self, patch: int) -> Range:
        shard, position = divmod(patch, self.patches_per_shard)
        name = shard_name(self.number, shard)
        offset, num_bytes = self.index(shard)[position].tolist()
        if offset == ABSENT or not num_bytes:
            raise self._error(f"patch {patch} cannot be read: the index of its shard has none there")
        return Range(f"{self.store.name}/{name}", offset, offset + num_bytes)

    def _fetch_blocks(self, disk: DiskCache, wanted: Iterable[int]) -> dict[int, bytes]:
        """Return the bytes of each patch, and of others, from the disk or else from the bucket; keep what is sound."""
        found: dict[int, bytes] = {}
        missing: dict[range, dict[int, Range]] = {}
        for block in {self._block(patch) for patch in wanted}:
            places = {patch: self._place(patch) for patch in block}
            data = disk.get(self._key(places))
            if data is None:
                missing[block] = places
            else:
                stops = np.cumsum([place.stop - place.start for place in places.values()]).tolist()
                found |= {patch: data[a:b] for patch, a, b in zip(block, [0, *stops[:-1]], stops, strict=True)}
        found |= self._fetch({patch: place for places in missing.values() for patch, place in places.items()})
        for block, places in missing.items():
            if all(crc32c(found[patch]) == CRC_RESIDUE for patch in block):
                disk.put(self._key(places), b"".join(found[patch] for patch in block))
        return found

    def _block(self, patch: int) -> range:
        """Return the patches that are kept together with a patch; all are in its shard."""
        shard, position = divmod(patch, self.patches_per_shard)
        first = patch - position % BLOCK
        return range(first, min(first + BLOCK, (shard + 1) * self.patches_per_shard, self.num_patches))

    def _key(self, places: dict[int, Range]) -> str:
        """Return a key that no other version of the store has, nor another bucket of the same URL at another endpoint.

        Even if the metadata are the same, different patches are not all of the same number of bytes.
        """
        return f"{self.store} {self.checksum} {[tuple(place) for place in places.values()]}"

    def _fetch(self, places: dict[int, Range]) -> dict[int, bytes]:
        """Return the bytes of each patch; patches that lie next to each other are asked for as one range."""
        merged, of = merge(sorted(set(places.values())))
        try:
            data = fetch(self.store.parent, merged)
        except StoreError as error:
            several = f"patches {min(places)} to {max(places)}" if len(places) > 1 else f"patch {min(places)}"
            raise type(error)(f"{self}, {several} cannot be read: {error}") from error
        return {
            patch: bytes(data[of[place]][place.start - merged[of[place]].start :][: place.stop - place.start])
            for patch, place in places.items()
        }


def merge(ranges: Sequence[Range]) -> tuple[list[Range], dict[Range, int]]:
    """Return ranges that cover sorted ranges without a gap, and the number of the one that holds each."""
    merged: list[Range] = []
    of = {}
    for one in ranges:
        last = merged[-1] if merged else None
        if last and last.name == one.name and one.start <= last.stop and one.stop - last.start <= LARGEST_GET:
            merged[-1] = last._replace(stop=max(last.stop, one.stop))
        else:
            merged.append(one)
        of[one] = len(merged) - 1
    return merged, of
