"""Damage to the tiles of a TIFF."""

from pathlib import Path

import tifffile


def retag(path: Path, tag: str, change: dict[int, int], level: int = 0) -> None:
    """Change entries of the tile table of a level."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        entry = tiff.series[0].levels[level].pages[0].tags[tag]
        entry.overwrite([change.get(index, known) for index, known in enumerate(entry.value)])


def destroy(path: Path, tiles: slice, level: int = 0) -> None:
    """Overwrite tiles of a level with zeros."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.series[0].levels[level].pages[0]
        for offset, size in zip(page.dataoffsets[tiles], page.databytecounts[tiles], strict=True):
            tiff.filehandle.seek(offset)
            tiff.filehandle.write(bytes(size))
