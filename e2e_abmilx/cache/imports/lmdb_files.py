"""The LMDB databases of the authors of ABMILX, read without trusting what is pickled in them."""

import contextlib
import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from e2e_abmilx.errors import SourceError
from e2e_abmilx.store.codec import jpeg_shape

_MAX_BYTES = 2**24  # of one value: no patch, and no table of slides, is larger


class Database(NamedTuple):
    """An open database: keys ``<slide>-<i>`` → pickled JPEG bytes, ``__pn__`` → number of patches per slide."""

    path: Path
    entries: int
    transaction: Any

    def counts(self) -> dict[str, int]:
        """Return the number of patches per slide."""
        counts = self._get("__pn__")
        if counts is None:
            raise SourceError(
                f"{self.path} has no table of slides (__pn__), which is written last: its writing was interrupted;"
                " run the authors' save_patches.py on it again, which resumes where it stopped"
            )
        if not isinstance(counts, dict) or not all(
            isinstance(name, str) and isinstance(count, int) and 0 <= count <= self.entries
            for name, count in counts.items()
        ):
            raise SourceError(
                f"{self.path} has a table of slides (__pn__) that does not hold a number of patches, at most"
                f" {self.entries}, per name; create the database again"
            )
        return counts

    def patch_size(self, slide: str) -> int:
        """Return the side of a slide's patches, pixels."""
        (first,) = self.jpegs(slide, 1)
        try:
            return jpeg_shape(first)[0]
        except ValueError as error:
            raise SourceError(f"{self.path} has no patch at {slide}-0: {error}; create the database again") from error

    def jpegs(self, slide: str, count: int) -> Iterator[bytes]:
        """Yield the first ``count`` patches of a slide, in the order of their numbers."""
        for patch in range(count):
            jpeg = self._get(f"{slide}-{patch}")
            if not isinstance(jpeg, bytes):
                what = "no value" if jpeg is None else f"a {type(jpeg).__name__} instead of JPEG bytes"
                raise SourceError(f"{self.path} has {what} at {slide}-{patch}; create the database again")
            yield jpeg

    def _get(self, key: str) -> object:
        value = self.transaction.get(key.encode())
        try:
            return None if value is None else _unpickle(value)
        except Exception as error:  # damaged pickles raise errors of many types
            raise SourceError(
                f"{self.path} has a pickle at {key} that is damaged or holds more than bytes, str, int, list and dict"
                f" ({error}); nothing in it was run; create the database again"
            ) from error


@contextlib.contextmanager
def open_database(path: Path) -> Iterator[Database]:
    """Open a database for the ``with`` block, as a process cannot open one twice; refuse a damaged one."""
    try:
        import lmdb
    except ImportError as error:
        raise SourceError("reading an LMDB needs py-lmdb; `pip install e2e-abmilx[lmdb]`") from error
    try:
        with (
            lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False) as environment,
            environment.begin(buffers=True) as transaction,
        ):
            table = environment.stat()
            size = (environment.info()["last_pgno"] + 1) * table["psize"]
            if path.stat().st_size < size:  # reading beyond the end of the file would kill the process
                raise SourceError(f"{path} is truncated: it must have {size} bytes; copy it again")
            yield Database(path, table["entries"], transaction)
    except lmdb.Error as error:
        raise SourceError(f"{path} cannot be read as an LMDB ({error}); check the path, or copy it again") from error


#: The opcodes of a pickle of bytes, str, int, list and dict. None of them names, calls or creates anything else.
_OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "BINBYTES",
    "SHORT_BINBYTES", "BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "EMPTY_LIST",
    "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS",
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    """A second safeguard: opcodes that ask for a class or function are refused before this reads anything."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickle(data: memoryview) -> object:
    """Unpickle bytes, str, int, list and dict; raise an error of any type for everything else."""
    if len(data) > _MAX_BYTES:
        raise pickle.UnpicklingError(f"it has {len(data)} bytes, and no patch has more than {_MAX_BYTES}")
    for opcode, argument, _ in pickletools.genops(bytes(data)):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f"it has the opcode {opcode.name}")
        if opcode.name == "LONG_BINPUT" and int(argument or 0) > len(data):  # that many entries are allocated
            raise pickle.UnpicklingError(f"it has a memo of {argument} entries")
    return _Unpickler(io.BytesIO(data)).load()
