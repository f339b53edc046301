"""``CohortIndex``, the facts of the stores of a cache, of which only new and changed ones are opened."""

import functools
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.store import objects
from e2e_abmilx.store.facts import StoreFacts, decode_index, encode_index
from e2e_abmilx.store.format import StoreError, parse_metadata
from e2e_abmilx.store.locations import Location, ObjectUrl, as_location, store_path
from e2e_abmilx.store.reader import PatchStore

logger = logging.getLogger(__name__)

#: The file of a cache folder that holds its index.
INDEX = "stores.index"

#: A store younger than this when it is read is not indexed: where a file system counts whole seconds (FAT: two), a store
#: rebuilt within the same second, in the same inode, could not be told from the one that was read.
SETTLED_NS = 3_000_000_000


class CohortIndex:
    """The stores of a folder by slide name, for a whole cohort to be checked and counted without opening each.

    Its file, ``stores.index``, is read at the beginning. A store is known from it if its ``zarr.json`` is still the same
    file, by inode, size, mtime and ctime; any other is opened, and remembered by :meth:`save`. The file may be deleted at
    any time, and any number of processes may read and write it at once.

    In object storage, ``e2e-abmilx push`` writes the index after the stores, which never change; one GET reads it, and a
    store that it lists is not opened.

    Args:
        folder: Folder or URL of ``<slide>.zarr`` stores.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = as_location(folder)
        self._known = _read(self.folder)
        self._opened: dict[str, StoreFacts] = {}
        self._settled_before: int | None = None

    def __getitem__(self, slide: str) -> StoreFacts:
        """Return the facts of a slide's store.

        Raises:
            StoreError: As when the store is opened.
        """
        known = self._known.get(slide)
        if isinstance(self.folder, ObjectUrl):
            return known or StoreFacts.of(PatchStore(store_path(self.folder, slide)))
        stamp = _stamp(self.folder, slide)
        if known is not None and stamp and known.stamp == stamp:
            return known
        if self._settled_before is None:  # the time before the first is read: what is settled then stays so
            self._settled_before = _time_of(self.folder) - SETTLED_NS
        facts = StoreFacts.of(PatchStore(store_path(self.folder, slide)), stamp)
        if stamp and stamp == _stamp(self.folder, slide) and max(stamp[2:]) < self._settled_before:
            self._known[slide] = self._opened[slide] = facts
        return facts

    def slides(self) -> list[str]:
        """Return the names of the slides that have a store, sorted; of a pushed cohort, those that its index lists."""
        if isinstance(self.folder, ObjectUrl):
            names = self._known or (name for name in objects.list_folders(self.folder) if name.endswith(".zarr"))
        else:
            names = (path.name for path in self.folder.glob("*.zarr"))
        return sorted(name.removesuffix(".zarr") for name in names)

    def save(self) -> None:
        """Add the stores that were opened to the file, and remove those that are gone; do nothing if it cannot be written."""
        if not self._opened or isinstance(self.folder, ObjectUrl):
            return
        path = self.folder / INDEX
        merged = {**_read(self.folder), **self._opened}  # others may have written meanwhile
        try:
            there = set(os.listdir(self.folder))
            with atomic_write(path) as partial:
                partial.write_bytes(encode_index(facts for facts in merged.values() if f"{facts.name}.zarr" in there))
        except OSError as error:  # a full disk or a read-only folder; the index only saves time
            logger.debug("%s cannot be written: %s", path, error)


def add_to_index(folder: ObjectUrl, stores: Mapping[str, StoreFacts]) -> None:
    """Add stores in object storage to their index, from when on they are seen; any number of processes may.

    Raises:
        StoreError: The index cannot be written.
    """
    if stores:
        # what the index holds is read first, since damage in transit must not empty it
        known = _of_bucket(folder)
        objects.update(folder, INDEX, lambda data: encode_index({**known, **_sound(data), **stores}.values()))


def read_facts(folder: ObjectUrl, slides: Iterable[str]) -> dict[str, StoreFacts]:
    """Return the facts of the slides that have a whole store in object storage now, whatever the index lists.

    Raises:
        StoreError: A store cannot be read.
    """
    with ThreadPoolExecutor(objects.CONNECTIONS) as pool:
        found = pool.map(functools.partial(_read_facts, folder), slides)
        return {facts.name: facts for facts in found if facts is not None}


def _read_facts(folder: ObjectUrl, slide: str) -> StoreFacts | None:
    name = f"{slide}.zarr/zarr.json"  # the last object of a store that is written
    for attempt in range(2):  # damage in transit is gone the second time
        data = objects.get(folder, name)
        try:
            return None if data is None else StoreFacts.from_metadata(slide, parse_metadata(data, folder / name))
        except StoreError:
            if attempt:
                raise
    return None


def _read(folder: Location) -> dict[str, StoreFacts]:
    """Return the content of the index of a cache; nothing if there is none, or a local one is damaged or of another version.

    Raises:
        StoreError: The index in a bucket cannot be used; without it, half a store could be taken for a whole one.
    """
    if isinstance(folder, ObjectUrl):
        return _of_bucket(folder)
    try:
        return _sound((folder / INDEX).read_bytes())
    except OSError:
        return {}


def _of_bucket(folder: ObjectUrl) -> dict[str, StoreFacts]:
    for attempt in range(2):  # damage in transit is gone the second time
        data = objects.get(folder, INDEX)
        try:
            return {} if data is None else decode_index(data)
        except StoreError as error:
            if attempt:
                raise StoreError(f"{folder / INDEX}: {error}: delete it and push all caches again") from error
    return {}


def _sound(data: bytes | None) -> dict[str, StoreFacts]:
    """Return the content of an index; nothing if it is missing, damaged or of another version."""
    try:
        return {} if data is None else decode_index(data)
    except StoreError:
        return {}


def _stamp(folder: Path, slide: str) -> tuple[int, ...]:
    """Return what tells the ``zarr.json`` of a store from any other file that was or will be there; empty if missing."""
    try:
        found = os.stat(f"{folder}/{slide}.zarr/zarr.json")
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _time_of(folder: Path) -> int:
    """Return the time in ns by the clock of the folder's file system, which may be another machine's; 0 if read-only."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return 0
