"""``CohortIndex``, the facts of the stores of a folder, of which only new and changed ones are opened."""

import logging
import os
import tempfile
from pathlib import Path

from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.store.facts import StoreFacts, decode_index, encode_index
from e2e_abmilx.store.format import StoreError
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

    Args:
        folder: Folder of ``<slide>.zarr`` stores.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._known = _read(self.folder / INDEX)
        self._opened: dict[str, StoreFacts] = {}
        self._settled_before: int | None = None

    def __getitem__(self, slide: str) -> StoreFacts:
        """Return the facts of a slide's store.

        Raises:
            StoreError: As when the store is opened.
        """
        stamp = _stamp(self.folder, slide)
        known = self._known.get(slide)
        if known is not None and stamp and known.stamp == stamp:
            return known
        if self._settled_before is None:  # the time before the first is read: what is settled then stays so
            self._settled_before = _time_of(self.folder) - SETTLED_NS
        facts = StoreFacts.of(PatchStore(self.folder / f"{slide}.zarr"), stamp)
        if stamp and stamp == _stamp(self.folder, slide) and max(stamp[2:]) < self._settled_before:
            self._opened[slide] = facts
        return facts

    def save(self) -> None:
        """Add the stores that were opened to the file, and remove those that are gone; do nothing if it cannot be written."""
        if not self._opened:
            return
        path = self.folder / INDEX
        merged = {**_read(path), **self._opened}  # others may have written meanwhile
        try:
            there = set(os.listdir(self.folder))
            with atomic_write(path) as partial:
                partial.write_bytes(encode_index(facts for facts in merged.values() if f"{facts.name}.zarr" in there))
        except OSError as error:  # a full disk or a read-only folder; the index only saves time
            logger.debug("%s cannot be written: %s", path, error)


def _read(path: Path) -> dict[str, StoreFacts]:
    """Return the content of an index file; nothing if it is missing, damaged, or of another version."""
    try:
        return decode_index(path.read_bytes())
    except (OSError, StoreError):
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
