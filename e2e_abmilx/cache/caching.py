"""Many slides → many stores: the work is resumable and shared between processes, and failed slides are recorded."""

import functools
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from e2e_abmilx.cache.bucket import find_pushed, make_in_bucket
from e2e_abmilx.cache.build import SlideJob, plan_slide
from e2e_abmilx.cache.crosscheck import CHECK_PATCHES, check_count
from e2e_abmilx.cache.jobs import CacheError, StoreJob, describe, make_store
from e2e_abmilx.cache.manifest import CachedSlide, compact_manifest, read_manifest, update_manifest
from e2e_abmilx.cache.origins import refuse_other_origin, refuse_other_origins
from e2e_abmilx.cache.overview import write_sheet
from e2e_abmilx.cache.rows import report, watch
from e2e_abmilx.cache.tiling import Tiling, check, parse_scales
from e2e_abmilx.cache.workers import run_jobs
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.progress import track
from e2e_abmilx.slides.slide_files import find_slides
from e2e_abmilx.store import CohortIndex, PatchStore
from e2e_abmilx.store.format import ReachError
from e2e_abmilx.store.locations import Location, ObjectUrl, as_location, as_writable, store_path

logger = logging.getLogger(__name__)

_LONGEST_NAME = 255  # bytes, in every common file system


def cache_slides(
    slides: Path | list[Path],
    out: str | Path,
    *,
    mpp: tuple[float | str, ...] = (0.5, 1.0),
    patch_size: int = 256,
    overlap: float = 0.0,
    min_tissue: float = 0.5,
    quality: int = 90,
    assume_mpp: float | None = None,
    check_patches: int = CHECK_PATCHES,
    workers: int = 2,
    scheduler: str | None = None,
    dry_run: bool = False,
) -> list[CachedSlide]:
    """Cut slides into patches and keep them as one ``<slide>.zarr`` each.

    Slides that are already cached are skipped. Processes that share the folder share the work: each makes the stores
    that no other process is making, and finally waits for those still being made. A slide that cannot be read fails,
    with the reason in ``manifest.csv``, and the others continue. ``overviews/`` shows the tissue and the patches of
    each slide, ``overview.png`` all of them.

    Into a bucket, each store is made in a temporary folder (``TMPDIR`` says where), sent as ``e2e-abmilx push`` sends it,
    and removed: no disk holds more stores than there are workers. Each Dask worker sends its own. There are no overviews.
    Machines that share a bucket should be given different slides; a slide that two of them have is made twice.

    Args:
        slides: A folder, a list of files, or a CSV with a column ``slide`` (or ``wsi``) of paths and, where the
            slide's own µm/px is wrong or missing, ``mpp``.
        out: Folder of the stores, created if it does not exist; or their URL in a bucket, such as ``s3://bucket/cohort``.
        mpp: Each scale as µm per pixel, as a magnification such as ``20x``, which is 0.5, or as a pyramid level such
            as ``level1``, which means its µm per pixel in the first slide that has it.
        patch_size: Side of a patch, pixels.
        overlap: Fraction of a patch that neighbours have in common, in [0, 1).
        min_tissue: Smallest fraction of tissue in a patch, in [0, 1].
        quality: JPEG quality, 1 to 100; ``benchmarks/store_quality.py`` shows what 90 preserves.
        assume_mpp: Level-0 µm per pixel of slides that state neither µm/px nor an objective power.
        check_patches: Patches per scale that a second reader of the slide decodes again; a slide whose readers
            disagree fails. 0 checks none.
        workers: Number of slides cut at the same time, each by its own process.
        scheduler: Address of a Dask scheduler, ``tcp://host:port``, whose workers are used instead.
        dry_run: Only estimate the number of patches, bytes and seconds; write nothing.

    Returns:
        One row per slide, as in the manifest.

    Raises:
        SlideError: There is no slide, or two have the same name.
        TilingError: A setting is out of range.
        CheckError: check_patches is negative.
        CacheError: The folder holds stores made with other settings, or cannot be written.
        StoreError: The bucket cannot be read or written.
    """
    check_count(check_patches)
    place, files = as_writable(out), find_slides(slides)
    scales = parse_scales(mpp, files, assume_mpp)
    tiling = Tiling(scales, patch_size, overlap, min_tissue, quality, assume_mpp)
    check(tiling)
    jobs = [SlideJob(file, Path(place), tiling, max(1, workers // len(files)), check_patches) for file in files]
    if dry_run:
        _refuse_other_origins(jobs, place)
        return report(list(watch(run_jobs(plan_slide, jobs, workers, None), "planning", len(jobs))))
    return make_stores(jobs, place, workers, scheduler)


def make_stores(
    jobs: Sequence[StoreJob],
    place: Location,
    workers: int,
    scheduler: str | None = None,
    *,
    failed: Sequence[CachedSlide] = (),
) -> list[CachedSlide]:
    """Make the stores that do not exist yet, and record every slide in the manifest; otherwise as `cache_slides`.

    ``failed`` are rows of slides that have failed already.
    """
    too_long = [job.slide for job in jobs if len(os.fsencode(job.store.name)) > _LONGEST_NAME]
    reason = "its name is too long for a store's folder; shorten it to 200 characters"
    failed = [*failed, *(CachedSlide(slide.name, "failed", f"{slide.path}: {reason}") for slide in too_long)]
    jobs = [job for job in jobs if job.slide not in too_long]
    if isinstance(place, ObjectUrl):
        return report(make_in_bucket(jobs, place, workers, scheduler, failed))
    return report(_make_in_folder(jobs, place, workers, scheduler, failed))


def _refuse_other_origins(jobs: Sequence[StoreJob], place: Location) -> None:
    if isinstance(place, ObjectUrl):
        find_pushed(jobs, place)
    else:
        refuse_other_origins(jobs, CohortIndex(place))


def _make_in_folder(
    jobs: Sequence[StoreJob], out: Path, workers: int, scheduler: str | None, failed: Sequence[CachedSlide]
) -> list[CachedSlide]:
    stores = CohortIndex(out)
    refuse_other_origins(jobs, stores)
    _make_folder(out)
    earlier = read_manifest(out)
    there = [job for job in jobs if job.store.exists()]
    rows = [*failed, *(describe(job, earlier, stores[job.slide.name].attributes) for job in there)]
    stores.save()
    update_manifest(out, [row for row in rows if earlier.get(row.slide) != row])
    todo = {job.slide.name: job for job in jobs if not job.store.exists()}
    total = len(jobs) + len(failed)
    for row in watch(_share(todo, workers, scheduler), "caching", total, ready=total - len(todo)):
        if (job := todo[row.slide]).store.exists():  # another process may have made it with other settings
            refuse_other_origin(job.store, PatchStore(job.store).attributes, job.origin())
        rows.append(row)
    compact_manifest(out)
    if todo:
        write_sheet(out)
    return rows


def _share(jobs: Mapping[str, StoreJob], workers: int, scheduler: str | None) -> Iterator[CachedSlide]:
    """Make the stores that no other process is making, then wait for the others; ``jobs`` by slide."""
    claimed = []
    for row in run_jobs(functools.partial(make_store, wait=False), list(jobs.values()), workers, scheduler):
        if row.status == "claimed":
            claimed.append(jobs[row.slide])
        else:
            yield row
    yield from run_jobs(make_store, claimed, workers, scheduler)


def verify(cache: str | Path) -> list[str]:
    """Check every checksum of every store of a cache, and decode every patch.

    Args:
        cache: Folder of the stores, or its URL in a bucket.

    Returns:
        One sentence per problem, naming slide, scale and patch.

    Raises:
        CacheError: The folder holds no store.
        ReachError: The bucket does not answer, or refuses the credentials.
    """
    place = as_location(cache)
    names = CohortIndex(place).slides()
    if not names:
        raise CacheError(f"{place} holds no patch store; check the path")
    problems: list[str] = []
    for name in track(names, "verifying", "slides"):
        try:
            problems += PatchStore(store_path(place, name)).verify()
        except ReachError:
            raise
        except InputError as error:
            problems.append(str(error))
    return problems


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):  # its name is unique among all machines that share the folder
            pass
    except OSError as error:
        raise CacheError(
            f"{out} cannot be written ({error.strerror}); choose a folder that you may write to"
        ) from error
