"""The manifest of a cache, ``manifest.csv``: one row per slide, done or failed."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.io.locks import hold

MANIFEST = "manifest.csv"


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
        with (
            atomic_write(folder / MANIFEST) as partial,
            open(partial, "w", newline="", encoding="utf-8") as file,
        ):
            table = csv.writer(file)
            table.writerow(CachedSlide._fields)
            table.writerows(merged[slide] for slide in sorted(merged))


def _parse(row: dict[str, str]) -> CachedSlide:
    mean, largest = row.get("mean_difference"), row.get("largest_difference")
    return CachedSlide(
        row["slide"],
        row["status"],
        row["reason"],
        read_by=row.get("read_by") or "",  # manifests of earlier releases lack these columns
        checked_by=row.get("checked_by") or "",
        checked=int(row.get("checked") or 0),
        mean_difference=float(mean) if mean else None,
        largest_difference=int(largest) if largest else None,
        mpp=float(row["mpp"]) if row["mpp"] else None,
        mpp_source=row["mpp_source"],
        patches=row["patches"],
        unreadable=int(row["unreadable"]),
        bytes=int(row["bytes"]),
        seconds=float(row["seconds"]),
    )
