"""Files that are either complete or absent."""

import glob
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder and rename it to ``path`` if the block ends without an error.

    The folder is created if missing. A killed process leaves the temporary file, whose name starts with a dot.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(path: Path) -> None:
    """Remove the temporary files of a path that killed processes left; the caller must be the only one that writes it."""
    for partial in path.parent.glob(glob.escape(f".{path.name}.") + "*.partial"):
        partial.unlink(missing_ok=True)
