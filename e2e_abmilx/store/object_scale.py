"""Random reads of the patches of one scale in object storage."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from e2e_abmilx.store.format import ABSENT, CRC_RESIDUE, StoreError, shard_name
from e2e_abmilx.store.locations import ObjectUrl
from e2e_abmilx.store.objects import Range, fetch
from e2e_abmilx.store.scale_reader import ScaleReader

LARGEST_GET = 16 * 2**20  # bytes; longer runs of patches are asked for in parts, at the same time


@dataclass(frozen=True, kw_only=True)
class ObjectScale(ScaleReader):
    """The patches of one scale of a store in object storage.

    Attributes:
        store: The URL of the store.
        find: Returns the index of a shard, offset and length of each patch, shape (S, 2).
        forget: Called when a patch stays damaged: the index, read earlier, may be that of a store that was replaced.
    """

    store: ObjectUrl
    find: Callable[[str, int], NDArray[np.uint64]]
    forget: Callable[[], None]

    def chunks(self, wanted: Iterable[int]) -> Iterator[bytes]:
        """Yield the stored bytes of each patch, all asked for together; one that arrives damaged is asked for again."""
        wanted = list(wanted)
        places = {patch: self._place(patch) for patch in wanted}
        found = self._fetch(places)
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
            raise self._error(f"{self.patches_of(shard)} cannot be read: {error}") from error

    def _place(self, patch: int) -> Range:
        shard, position = divmod(patch, self.patches_per_shard)
        name = shard_name(self.number, shard)
        offset, num_bytes = self.index(shard)[position].tolist()
        if offset == ABSENT or not num_bytes:
            raise self._error(f"patch {patch} cannot be read: the index of its shard has none there")
        return Range(f"{self.store.name}/{name}", offset, offset + num_bytes)

    def _fetch(self, places: dict[int, Range]) -> dict[int, bytes]:
        """Return the bytes of each patch; patches that lie next to each other are asked for as one range."""
        merged, of = merge(sorted(set(places.values())))
        try:
            data = fetch(self.store.parent, merged)
        except StoreError as error:
            several = f"patches {min(places)} to {max(places)}" if len(places) > 1 else f"patch {min(places)}"
            raise self._error(f"{several} cannot be read: {error}") from error
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
