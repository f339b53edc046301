"""Lock files, each held by one process at a time among all that share the folder."""

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

    The operating system releases the lock when its process ends, however it ends. The file of a killed process stays
    and the next holder takes it over. Between machines this needs a file system with ``flock`` (NFS 4, GPFS, Lustre
    mounted with ``flock``).

    Args:
        path: The lock file; created if missing, with its folder, and removed afterwards. The folder stays, because
            other processes may be about to create locks in it.
        wait: Wait for another holder instead of giving up.

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


def is_held(path: Path) -> bool | None:
    """Return True if a process holds a lock file, False if a killed one left it behind, None if there is no file."""
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
    """Open and lock a file; try again if its last holder removed it, or somebody its folder, in between."""
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
