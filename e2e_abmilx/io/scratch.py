"""Temporary folders, which are removed even if the process that made them was killed."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.locks import hold, is_held

_PREFIX = "e2e-abmilx-"
_LOCK = "lock"


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a temporary folder, where ``tempfile`` makes them: in ``TMPDIR`` if that is set.

    It is removed at the end of the block. What a killed process left is removed by the next one on the same machine: each
    folder holds a lock, which the operating system releases when its process ends.

    Raises:
        InputError: No temporary folder can be made.
    """
    try:
        _remove_abandoned(Path(tempfile.gettempdir()))
        own = Path(tempfile.mkdtemp(prefix=_PREFIX))
    except OSError as error:
        raise InputError(
            f"no temporary folder can be made ({error}); set TMPDIR to a folder that you may write to"
        ) from error
    try:
        with hold(own / _LOCK, wait=True):
            folder = own / "files"
            folder.mkdir()
            try:
                yield folder
            finally:  # while the lock is held: what is left without a lock is never removed
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of killed processes of this user; in others', the lock could be a link to any file."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            found = folder.lstat()
            ours = found.st_uid == os.getuid() and stat.S_ISDIR(found.st_mode)
            if ours and is_held(folder / _LOCK) is False:
                with hold(folder / _LOCK, wait=False) as free:
                    if free:
                        shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
