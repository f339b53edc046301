"""``DiskCache``, a bounded folder on a local disk that keeps what was read from a bucket.

It is our own because of kills: diskcache, the usual library, writes a file before it counts it, so that a killed
process leaves bytes that no bound covers.

The folder holds a file, ``MARKER``, that says what it is, and ``PARTS`` parts. Each part is bounded by itself and has a
file ``used``, which holds the number of its bytes and is its lock. Under the lock, an entry is first counted, then
written as ``partial``, and renamed when it is whole. A process killed at any time thus leaves at most a ``partial``,
which is counted and which the next entry overwrites, and too large a count, which the next removal sets right. The time
of the last use of an entry is its mtime, which readers set, because many file systems do not keep the atime.
"""

import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from e2e_abmilx.errors import InputError
from e2e_abmilx.store.format import CRC_BYTES, StoreError, with_crc, without_crc

logger = logging.getLogger(__name__)

PARTS = 64  # removals list a small folder, and processes seldom wait for one another
MARKER = "e2e-abmilx-local-cache"
_USED, _PARTIAL = "used", "partial"
_DIGITS = 20  # of the count
_KEPT = 0.9  # of the bound, when entries are removed, so that removals are rare


@dataclass(frozen=True)
class DiskCache:
    """Entries in a folder, at most ``limit`` bytes of them; all processes and threads of a machine may share it.

    The folder is created with its first entry, and may be deleted at any time. What a full or read-only disk refuses is
    not kept, of which a process warns once. Of caches with different limits in one folder, each holds its own when it
    writes.

    Attributes:
        folder: On a local disk; new, empty or already such a cache.
        limit: Bytes.

    Raises:
        InputError: The folder holds other files or cannot be read.
    """

    folder: Path
    limit: int

    def __post_init__(self) -> None:
        try:
            others = _holds_others(self.folder)
        except OSError as error:
            reason = error.strerror
            raise InputError(f"{self.folder} cannot be a local cache ({reason}); give another folder") from error
        if others:
            raise InputError(
                f"{self.folder} holds files and is not a local cache; a local cache removes files when it is full, so"
                " give a new or an empty folder"
            )

    def get(self, key: str) -> bytes | None:
        """Return an entry; None if there is none, or if it is damaged, in which case it is removed."""
        path = self._path(key)
        try:
            content = without_crc(path.read_bytes(), path)
        except OSError:
            return None
        except StoreError:
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # a read-only disk
            os.utime(path)
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keep an entry, unless it is larger than a part of the cache, or the disk does not allow it."""
        path, size = self._path(key), len(content) + CRC_BYTES
        if size > self.limit // PARTS:
            return
        try:
            self._create(path.parent)
            with _locked(path.parent / _USED) as count:
                _reserve(path.parent, count, size, self.limit // PARTS)
                _write(path, with_crc(content))
        except FileNotFoundError:
            return  # somebody has deleted the folder in between
        except OSError as error:
            _warn(self.folder, error.strerror)

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / f"{int(digest[:8], 16) % PARTS:02d}" / digest[8:]

    def _create(self, part: Path) -> None:
        """Create the folder, its marker and a part of it, where they are missing."""
        marker = self.folder / MARKER
        if not marker.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            if _holds_others(self.folder):
                raise FileExistsError(errno.EEXIST, "it holds other files")
            marker.write_text("Patches read from a bucket. This folder may be deleted at any time.\n", encoding="utf-8")
        part.mkdir(exist_ok=True)


def _holds_others(folder: Path) -> bool:
    """Return whether a folder holds anything and is not a cache."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return False
    return bool(names) and not (folder / MARKER).exists()  # looked for last: it is the first file of a new cache


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold the lock of a part; yield the handle of the file that holds its bytes.

    Raises:
        FileNotFoundError: The file has been deleted while another process held the lock.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(handle), os.stat(path)):
            raise FileNotFoundError(errno.ENOENT, "it was deleted", str(path))
        yield handle
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)  # closing would not do if another thread has forked, which copies the handle
        os.close(handle)


def _reserve(part: Path, count: int, size: int, limit: int) -> None:
    """Count the bytes of a new entry, after making room for it."""
    known = os.pread(count, _DIGITS + 1, 0)
    used = int(known) if len(known) == _DIGITS and known.isdigit() else limit  # without a count, bytes are counted anew
    if used + size > limit:
        used = _make_room(part, size, limit)
    os.ftruncate(count, _DIGITS)
    os.pwrite(count, b"%0*d" % (_DIGITS, used + size), 0)


def _make_room(part: Path, size: int, limit: int) -> int:
    """Return the bytes of a part, counted anew after the least recently used entries were removed for a new one."""
    (part / _PARTIAL).unlink(missing_ok=True)
    found = []
    for name in set(os.listdir(part)) - {_USED}:
        with suppress(FileNotFoundError):  # a reader has found it damaged, and removed it
            state = os.stat(part / name)
            found.append((state.st_mtime_ns, state.st_size, name))
    used = sum(num_bytes for _, num_bytes, _ in found)
    if used + size <= limit:
        return used
    for _, num_bytes, name in sorted(found):
        if used <= min(_KEPT * limit, limit - size):
            break
        (part / name).unlink(missing_ok=True)
        used -= num_bytes
    return used


def _write(path: Path, data: bytes) -> None:
    """Write an entry that is visible only as a whole; leave nothing if the disk is full."""
    partial = path.with_name(_PARTIAL)
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


_warned: set[Path] = set()  # of this process


def _warn(folder: Path, reason: str | None) -> None:
    if folder not in _warned:
        _warned.add(folder)
        logger.warning("%s cannot keep what was read (%s); reading goes on from the bucket", folder, reason)
