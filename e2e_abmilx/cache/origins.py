"""The slide that a store was cut from: where its file is, and whether a file is that slide."""

from pathlib import Path

from e2e_abmilx.cache.jobs import fingerprint
from e2e_abmilx.cache.manifest import read_manifest


def slide_path(cache: Path, slide: str) -> Path | None:
    """Return where the file of a slide was when it was cached, whether it is still there or not.

    Args:
        cache: Folder of the stores.
        slide: Name of the slide: that of its store, without ``.zarr``.

    Returns:
        The absolute path; None where the manifest has none: the patches were imported without their slide, or an earlier
        release cached it. Then ``e2e-abmilx cache`` with the same settings records it, without cutting the slide again.
    """
    row = read_manifest(cache).get(slide)
    return Path(row.path) if row is not None and row.path else None


def is_slide_of(recorded: str | None, file: Path) -> bool:
    """Return whether a file is the slide that a store was cut from, by size and by the first and last 64 KiB.

    Args:
        recorded: The attribute ``fingerprint`` of the store; None, of patches without a slide, is that of no file.
        file: The file; one that is missing or cannot be read is not the slide.
    """
    try:
        return fingerprint(file) == recorded
    except OSError:
        return False
