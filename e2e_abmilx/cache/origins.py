"""The origin of a store: its settings, the slide that it was cut from, where the file of that slide is."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from e2e_abmilx.cache.jobs import CacheError, StoreJob, fingerprint
from e2e_abmilx.cache.manifest import read_manifest
from e2e_abmilx.store import CohortIndex
from e2e_abmilx.store.locations import Location


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


def refuse_other_origins(jobs: Sequence[StoreJob], stores: CohortIndex) -> None:
    """Refuse stores made from another source or with other settings, because bags must not mix them.

    Raises:
        CacheError: The store of a job is one of them.
    """
    for job in jobs:
        if job.store.exists():
            refuse_other_origin(job.store, stores[job.slide.name].attributes, job.origin())


def refuse_other_origin(store: Location, made: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Refuse a store whose attributes tell of another source or other settings than are wanted.

    Raises:
        CacheError: They do.
    """
    if changed := list(_differences(made, wanted)):
        raise CacheError(
            f"{store} was made from another source or with other settings: {'; '.join(changed)}."
            " Choose another folder, use the old settings, or delete this store"
        )


def _differences(made: Mapping[str, object], wanted: Mapping[str, object]) -> Iterator[str]:
    for key, value in wanted.items():
        there = made.get(key)
        if isinstance(value, Mapping):
            yield from _differences(there if isinstance(there, Mapping) else {}, value)
        elif there != value:
            yield f"{key} was {there} and is now {value}"
