"""Lock files: one process at a time, among all that share a folder; a dead process holds nothing."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock file while the ``with`` block runs.

    The system lets go of the lock when its process ends, however it ends; the file of a killed process stays
    behind and the next holder takes it over. Between machines this needs a file system with ``flock`` (NFS 4,
    GPFS, Lustre mounted with ``flock``).

    Args:
        path: The lock file; made where it does not exist, and removed afterwards.
        wait: Wait for another holder, instead of giving up.

    Yields:
        Whether the lock is ours.
    """
    handle = _lock(path, wait=wait)
    if handle is None:
        yield False
        return
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"{socket.gethostname()} {os.getpid()}\n".encode())
        yield True
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def is_abandoned(path: Path) -> bool:
    """Whether a lock file is there that nobody holds: its holder was killed."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _lock(path: Path, *, wait: bool) -> int | None:
    """Open and lock; again where the file was removed by its last holder in between."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:
            pass
        os.close(handle)
