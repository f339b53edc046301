"""Lock files: one process at a time, among all that share a folder; a dead process holds nothing."""

import contextlib
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
        path: The lock file; made where it does not exist, with its folder, and removed afterwards. Its folder stays:
            others may be about to lock in it.
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
    return _is_held(path) is False


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock file."""
    return _is_held(path) is True


def _is_held(path: Path) -> bool | None:
    """Whether a lock file is held; None where there is none."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _lock(path: Path, *, wait: bool) -> int | None:
    """Open and lock; again where the file was removed by its last holder in between, or its folder by somebody."""
    while True:
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir()
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue
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
