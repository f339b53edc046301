"""The manifest of a cache, ``manifest.csv``: one row per slide, done or failed."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.io.locks import hold

MANIFEST = "manifest.csv"

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


def read_manifest(folder: Path) -> dict[str, CachedSlide]:
    """Return the rows of a folder's manifest by slide; empty if there is no manifest."""
    path = folder / MANIFEST
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {row["slide"]: _parse(row) for row in csv.DictReader(file)}


def update_manifest(folder: Path, rows: Iterable[CachedSlide]) -> None:
    """Add rows to a folder's manifest, replacing those of the same slides; any number of processes may."""
    with hold(folder / ".manifest.lock", wait=True):
        merged = {**read_manifest(folder), **{row.slide: row for row in rows}}
        with atomic_write(folder / MANIFEST) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(CachedSlide._fields)
            table.writerows(merged[slide] for slide in sorted(merged))


def _parse(row: dict[str, str]) -> CachedSlide:
    """Return a row of the file; empty cells, and columns that earlier releases lack, get their defaults."""
    values: dict[str, Any] = {name: row[name] for name in CachedSlide._fields if row.get(name)}
    for name, convert in _NUMBERS.items():
        if name in values:
            values[name] = convert(values[name])
    return CachedSlide(**values)
