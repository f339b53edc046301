"""Tracebacks of errors, on demand."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

_DEBUG = "JSONARGPARSE_DEBUG"  # environment variable


@contextmanager
def debug() -> Iterator[None]:
    """Print tracebacks, also of options that jsonargparse refuses, and in processes that are started meanwhile."""
    before = os.environ.get(_DEBUG)
    os.environ[_DEBUG] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_DEBUG]
        else:
            os.environ[_DEBUG] = before


def print_traceback_if_asked() -> None:
    """Print the traceback of the current error in debug mode."""
    if os.environ.get(_DEBUG, "").lower() not in ("", "0", "false", "no"):
        traceback.print_exc()
