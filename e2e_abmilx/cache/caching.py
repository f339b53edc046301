"""Many slides → many stores: the work is resumable and shared between processes, and failed slides are recorded."""

import functools
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from e2e_abmilx.cache.build import SlideJob, plan_slide
from e2e_abmilx.cache.crosscheck import CHECK_PATCHES, check_count
from e2e_abmilx.cache.jobs import StoreJob, describe, make_store
from e2e_abmilx.cache.manifest import CachedSlide, compact_manifest, read_manifest, update_manifest
from e2e_abmilx.cache.overview import write_sheet
from e2e_abmilx.cache.tiling import Tiling, check, parse_scales
from e2e_abmilx.cache.workers import run_jobs
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.progress import show_progress, track
from e2e_abmilx.slides.slide_files import find_slides
from e2e_abmilx.store import CohortIndex, PatchStore

logger = logging.getLogger(__name__)

_LONGEST_NAME = 255  # bytes, in every common file system


class CacheError(InputError):
    """A cache cannot be built or used."""


def cache_slides(
    slides: Path | list[Path],
    out: Path,
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

    Args:
        slides: A folder, a list of files, or a CSV with a column ``slide`` (or ``wsi``) of paths and, where the
            slide's own µm/px is wrong or missing, ``mpp``.
        out: Folder of the stores; created if it does not exist.
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
    """
    check_count(check_patches)
    files, out = find_slides(slides), Path(out)
    scales = parse_scales(mpp, files, assume_mpp)
    tiling = Tiling(scales, patch_size, overlap, min_tissue, quality, assume_mpp)
    check(tiling)
    jobs = [SlideJob(file, out, tiling, max(1, workers // len(files)), check_patches) for file in files]
    if dry_run:
        refuse_other_origins(jobs, CohortIndex(out))
        return _report(list(_watch(run_jobs(plan_slide, jobs, workers, None), "planning", len(jobs))))
    return make_stores(jobs, out, workers, scheduler)


def make_stores(
    jobs: Sequence[StoreJob],
    out: Path,
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
    for row in _watch(_share(todo, workers, scheduler), "caching", total, ready=total - len(todo)):
        if (job := todo[row.slide]).store.exists():  # another process may have made it with other settings
            _refuse_other_origin(job, PatchStore(job.store).attributes)
        rows.append(row)
    compact_manifest(out)
    if todo:
        write_sheet(out)
    return _report(rows)


def _share(jobs: Mapping[str, StoreJob], workers: int, scheduler: str | None) -> Iterator[CachedSlide]:
    """Make the stores that no other process is making, then wait for the others; ``jobs`` by slide."""
    claimed = []
    for row in run_jobs(functools.partial(make_store, wait=False), list(jobs.values()), workers, scheduler):
        if row.status == "claimed":
            claimed.append(jobs[row.slide])
        else:
            yield row
    yield from run_jobs(make_store, claimed, workers, scheduler)


def refuse_other_origins(jobs: Sequence[StoreJob], stores: CohortIndex) -> None:
    """Refuse stores made from another source or with other settings, because bags must not mix them.

    Raises:
        CacheError: The store of a job is one of them.
    """
    for job in jobs:
        if job.store.exists():
            _refuse_other_origin(job, stores[job.slide.name].attributes)


def _refuse_other_origin(job: StoreJob, attributes: Mapping[str, object]) -> None:
    if changed := list(_differences(attributes, job.origin())):
        raise CacheError(
            f"{job.store} was made from another source or with other settings: {'; '.join(changed)}."
            " Choose another folder, use the old settings, or delete this store"
        )


def _differences(made: Mapping[str, object], wanted: Mapping[str, object]) -> Iterator[str]:
    for key, value in wanted.items():
        there = made.get(key)
        if isinstance(value, Mapping):
            yield from _differences(there if isinstance(there, Mapping) else {}, value)
        elif there != value:
            yield f"{key} was {there} and is now {value}"


def verify(cache: Path) -> list[str]:
    """Check every checksum of every store of a cache, and decode every patch.

    Args:
        cache: Folder of the stores.

    Returns:
        One sentence per problem, naming slide, scale and patch.

    Raises:
        CacheError: The folder holds no store.
    """
    paths = sorted(Path(cache).glob("*.zarr"))
    if not paths:
        raise CacheError(f"{cache} holds no patch store; check the path")
    problems: list[str] = []
    for path in track(paths, "verifying", "slides"):
        try:
            problems += PatchStore(path).verify()
        except InputError as error:
            problems.append(str(error))
    return problems


def _watch(rows: Iterator[CachedSlide], doing: str, total: int, ready: int = 0) -> Iterator[CachedSlide]:
    """Show slides, patches per second and failures while rows arrive."""
    started, patches, failed = time.perf_counter(), 0, 0
    with show_progress(doing, total, "slides", ready=ready) as progress:
        for row in rows:
            patches += row.num_patches
            failed += row.status == "failed"
            speed = f"{patches / (time.perf_counter() - started):.0f} patches/s"
            progress.advance(f"{speed}, {failed} failed" if failed else speed)
            yield row


def _report(rows: Sequence[CachedSlide]) -> list[CachedSlide]:
    """Log the failures and the totals; return the rows sorted by slide."""
    for row in rows:
        if row.status == "failed":
            logger.warning("%s failed: %s", row.slide, row.reason)
    done = [row for row in rows if row.status != "failed"]
    patches, size = sum(row.num_patches for row in done), sum(row.bytes for row in done) / 1e6
    seconds, failed = sum(row.seconds for row in done), len(rows) - len(done)
    logger.info("%d slides, %d patches, %.1f MB, %.0f s of work; %d failed", len(done), patches, size, seconds, failed)
    return sorted(rows)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):  # its name is unique among all machines that share the folder
            pass
    except OSError as error:
        raise CacheError(
            f"{out} cannot be written ({error.strerror}); choose a folder that you may write to"
        ) from error
