"""``DiskCache``, a bounded folder on a local disk that keeps what was read from a bucket.

It is our own because of kills: diskcache, the usual library, writes a file before it counts it, so that a killed process
leaves bytes that no bound covers.

A folder is divided into ``PARTS`` parts, each with a file ``used``, which holds the number of bytes reserved and is the lock
under which entries are reserved, and removed, the least recently used first. An entry is written under another name, which
is a dot, its key and its process, and renamed when it is whole. Bytes are reserved before they are written, so a process
killed at any time can only leave too large a count, which the next removal sets right.
"""

import fcntl
import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from e2e_abmilx.io.locks import is_held
from e2e_abmilx.store.format import CRC_BYTES, StoreError, with_crc, without_crc

logger = logging.getLogger(__name__)

PARTS = 64  # each is bounded by itself: removals list a small folder, and processes seldom wait for one another
_KEPT = 0.9  # of the bound, when entries are removed, so that removals are rare
_USED = "used"


@dataclass(frozen=True)
class DiskCache:
    """Entries in a folder, at most ``limit`` bytes of them; any number of processes and threads of a machine may share it.

    The folder may be deleted at any time. A disk that is full or read-only is warned of once; nothing is kept then.

    Attributes:
        folder: On a local disk; created if missing.
        limit: Bytes.
    """

    folder: Path
    limit: int

    def get(self, key: str) -> bytes | None:
        """Return an entry; None if there is none, or if it is damaged, in which case it is removed."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        try:
            content = without_crc(data, path)
        except StoreError:
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # a read-only disk
            os.utime(path)
        return bytes(content)

    def put(self, key: str, content: bytes) -> None:
        """Keep an entry, unless it is larger than a part of the cache, or the disk does not allow it."""
        path, size = self._path(key), len(content) + CRC_BYTES
        if size > self.limit // PARTS:
            return
        partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
        try:
            with os.fdopen(self._reserve(partial, size), "wb") as file:
                file.write(with_crc(content))
                file.flush()
                partial.replace(path)  # while the file is locked: a partial that nobody has locked is removed
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            _warn(self.folder, error.strerror)

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / f"{int(digest[:8], 16) % PARTS:02d}" / digest[8:]

    def _reserve(self, partial: Path, size: int) -> int:
        """Create and lock a file of the size of an entry, after making room for it; return its handle."""
        partial.parent.mkdir(parents=True, exist_ok=True)
        with _counted(partial.parent / _USED) as counter:
            known = os.pread(counter, 20, 0)
            used = int(known) if known.isdigit() else self.limit  # a new part, or an old one to be counted
            if used + size > self.limit // PARTS:
                used = _remove_oldest(partial.parent, self.limit // PARTS, size)
            os.pwrite(counter, b"%020d" % (used + size), 0)
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                os.ftruncate(handle, size)
            except OSError:
                os.close(handle)
                raise
            return handle


@contextmanager
def _counted(path: Path) -> Iterator[int]:
    """Hold the lock of a part; yield the handle of the file that holds its bytes."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _remove_oldest(part: Path, limit: int, size: int) -> int:
    """Remove what killed processes left, and if it is needed the least recently used entries; return the bytes of the rest."""
    found = []
    for entry in os.scandir(part):
        with suppress(FileNotFoundError):  # renamed or removed meanwhile
            if entry.name != _USED and not (entry.name.startswith(".") and _is_left(Path(entry.path))):
                state = entry.stat()
                found.append((state.st_mtime_ns, state.st_size, entry.path))
    used = sum(size for _, size, _ in found)
    wanted = limit - size if used + size <= limit else min(int(limit * _KEPT), limit - size)
    for _, freed, path in sorted(found):
        if used <= wanted:
            break
        if not os.path.basename(path).startswith("."):
            with suppress(FileNotFoundError):
                os.unlink(path)
            used -= freed
    return used


def _is_left(partial: Path) -> bool:
    """Remove an unfinished entry if its process is dead; return whether it was."""
    if is_held(partial):
        return False
    partial.unlink(missing_ok=True)
    return True


_warned: set[Path] = set()  # of this process


def _warn(folder: Path, reason: str | None) -> None:
    if folder not in _warned:
        _warned.add(folder)
        logger.warning("%s cannot keep what was read (%s); reading goes on from the bucket", folder, reason)
