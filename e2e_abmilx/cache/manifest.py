"""The manifest of a cache, ``manifest.csv``: one row per slide, done or failed.

While slides are cached, rows are appended, because rewriting 10,000 of them for each slide takes longer than many a slide;
the last row of a slide counts. A command that has finished leaves a single row of each. In a bucket, where nothing can be
appended to, it is replaced as a whole, now and then.
"""

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from e2e_abmilx.io.atomic import atomic_write, remove_partials
from e2e_abmilx.io.locks import hold
from e2e_abmilx.store import objects
from e2e_abmilx.store.locations import Location, ObjectUrl

MANIFEST = "manifest.csv"

_LOCK = ".manifest.lock"
_END = b"\r\n"  # of a row

_NUMBERS = {
    "checked": int, "mean_difference": float, "largest_difference": int, "mpp": float, "unreadable": int, "bytes": int,
    "seconds": float,
}  # fmt: skip


class CachedSlide(NamedTuple):
    """One row of the manifest.

    Attributes:
        slide: Name of the slide.
        status: ``"done"``, ``"failed"``, or ``"planned"`` in a dry run. ``"claimed"`` means that another process makes
            the store; it is never written.
        reason: Why it failed.
        read_by: The reader that its pixels come from: ``"tifffile"`` or ``"OpenSlide"``.
        checked_by: The reader that decoded some of its patches again, or why there is none.
        checked: Number of patches that were decoded again.
        mean_difference: Mean difference of the patch that differs most, grey levels.
        largest_difference: Largest difference of any pixel value, grey levels.
        mpp: Level-0 µm/px.
        mpp_source: Where that number came from.
        patches: Number of patches of each scale, finest first, separated by semicolons.
        unreadable: Number of patches left out: their pixels could not be decoded or, of imported images, they were
            smaller than the others at the edge of the slide.
        bytes: Size of the store.
        seconds: Time taken.
        path: Absolute path of the slide file when it was last cached or found to be cached; empty where patches were
            imported without their slide, and in manifests of earlier releases.
    """

    slide: str
    status: str
    reason: str = ""
    read_by: str = ""
    checked_by: str = ""
    checked: int = 0
    mean_difference: float | None = None
    largest_difference: int | None = None
    mpp: float | None = None
    mpp_source: str = ""
    patches: str = ""
    unreadable: int = 0
    bytes: int = 0
    seconds: float = 0.0
    path: str = ""

    @property
    def num_patches(self) -> int:
        """Number of patches of all scales."""
        return sum(map(int, filter(None, self.patches.split(";"))))


def read_manifest(folder: Location) -> dict[str, CachedSlide]:
    """Return the rows of a cache's manifest by slide, the last of each; empty if there is no manifest."""
    if isinstance(folder, ObjectUrl):
        return _parse_rows(_read_twice(folder, objects.get(folder, MANIFEST)))
    try:
        return _parse_rows((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return {}


def _parse_rows(data: bytes) -> dict[str, CachedSlide]:
    text = data[: _end_of_rows(data)].decode()
    return {row["slide"]: _parse(row) for row in csv.DictReader(io.StringIO(text, newline=""))}


def update_manifest(folder: Path, rows: Iterable[CachedSlide]) -> None:
    """Append rows to a folder's manifest, which take the place of earlier ones of the same slides.

    Any number of processes may. A row that a killed process left unfinished is removed.
    """
    if not (rows := list(rows)):
        return
    with hold(folder / _LOCK, wait=True):
        path = folder / MANIFEST
        if not os.access(path, os.W_OK) or not _has_these_columns(
            path
        ):  # missing, somebody else's, an earlier release's
            _write_all(folder, rows)
            return
        with open(path, "r+b") as file:
            _remove_unfinished_row(file)
            file.write(_as_csv(rows))


def add_to_manifest(folder: ObjectUrl, rows: Iterable[CachedSlide]) -> None:
    """Put rows into a manifest in object storage, in place of earlier ones of the same slides; any number of processes may.

    Raises:
        StoreError: The manifest cannot be written.
    """
    new = {row.slide: row for row in rows}
    objects.update(folder, MANIFEST, lambda data: _all_rows({**_parse_rows(_read_twice(folder, data)), **new}))


def _read_twice(folder: ObjectUrl, data: bytes | None) -> bytes:
    """Return a manifest in object storage, once it reads the same two times: it has no checksum that shows damage."""
    while (again := objects.get(folder, MANIFEST)) != data:
        data = again
    return data or b""


def compact_manifest(folder: Path) -> None:
    """Leave a single row per slide in a folder's manifest, sorted by slide; any number of processes may."""
    with hold(folder / _LOCK, wait=True):
        if (folder / MANIFEST).exists():
            _write_all(folder, [])


def _write_all(folder: Path, rows: Iterable[CachedSlide]) -> None:
    """Write the manifest anew, while its lock is held: the rows that it has, or those that take their place."""
    remove_partials(folder / MANIFEST)
    merged = {**read_manifest(folder), **{row.slide: row for row in rows}}
    with atomic_write(folder / MANIFEST) as partial:
        partial.write_bytes(_all_rows(merged))


def _all_rows(rows: Mapping[str, CachedSlide]) -> bytes:
    """Return a whole manifest, sorted by slide."""
    return _HEADER + _as_csv(rows[slide] for slide in sorted(rows))


def _has_these_columns(path: Path) -> bool:
    """Return whether a manifest begins with the columns of this release; one of an earlier release does not."""
    with open(path, "rb") as file:
        return file.read(len(_HEADER)) == _HEADER


def _remove_unfinished_row(file: BinaryIO) -> None:
    """Move to the end of a manifest, and cut off a row that is not complete."""
    file.seek(-len(_END), os.SEEK_END)
    if file.read() != _END:
        file.seek(0)
        file.truncate(_end_of_rows(file.read()))
        file.seek(0, os.SEEK_END)


def _end_of_rows(data: bytes) -> int:
    """Return where the last complete row of a manifest ends.

    ``_END`` is nowhere but at the end of a row. What follows the last one is a row that a killed process left unfinished, or
    rows by an editor that ends lines otherwise: those are complete at each line feed outside quotes.
    """
    start = data.rfind(_END) + len(_END) if _END in data else 0
    end = len(data)
    while (end := data.rfind(b"\n", start, end)) >= 0:
        if data.count(b'"', start, end) % 2 == 0:
            return end + 1
    return start


def _as_csv(rows: Iterable[Iterable[object]]) -> bytes:
    """Return rows as CSV, each ended by ``_END``, which no cell contains."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator=_END.decode())
    for row in rows:
        table.writerow([re.sub("\r+\n", "\n", cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue().encode()


def _parse(row: dict[str, str]) -> CachedSlide:
    """Return a row of the file; empty cells, and columns that earlier releases lack, get their defaults."""
    values: dict[str, Any] = {name: row[name] for name in CachedSlide._fields if row.get(name)}
    for name, convert in _NUMBERS.items():
        if name in values:
            values[name] = convert(values[name])
    return CachedSlide(**values)


_HEADER = _as_csv([CachedSlide._fields])
