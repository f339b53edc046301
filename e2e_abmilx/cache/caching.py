"""Many slides → many stores: resumable, shared between processes, failed slides recorded."""

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from e2e_abmilx.cache.build import (
    CLAIMS,
    OVERVIEWS,
    Job,
    StoreJob,
    describe,
    make_store,
    plan_slide,
    try_store,
)
from e2e_abmilx.cache.crosscheck import CHECK_PATCHES, check_count
from e2e_abmilx.cache.manifest import CachedSlide, read_manifest, update_manifest
from e2e_abmilx.cache.overview import draw_overview, draw_sheet
from e2e_abmilx.cache.tiling import Tiling, check, parse_scales
from e2e_abmilx.cache.workers import run_jobs
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.io.locks import hold, is_held
from e2e_abmilx.io.progress import show_progress, track
from e2e_abmilx.slides.slide_files import find_slides
from e2e_abmilx.store import PatchStore

logger = logging.getLogger(__name__)


_LONGEST = 255  # bytes of a name, in every common file system


class CacheError(InputError):
    """A cache that cannot be built or used."""


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

    A slide that is already there is not done again. Processes that share the folder share the work: each makes the
    stores that no other is making, and at the end waits for those that one still is. A slide that cannot be read is
    set aside: the others go on, and ``manifest.csv`` says why. ``overviews/`` shows the tissue and the patches of
    each slide, ``overview.png`` all of them.

    Args:
        slides: A folder, a list of files, or a CSV with a column ``slide`` (or ``wsi``) of paths and, where the
            slide's own µm/px is wrong or missing, ``mpp``.
        out: Folder of the stores; made where it does not exist.
        mpp: Each scale as µm per pixel, as a magnification such as ``20x``, which is 0.5, or as a pyramid level such
            as ``level1``, which is what it is in the first slide that has it.
        patch_size: Side of a patch, pixels.
        overlap: Share of a patch that neighbours have in common, in [0, 1).
        min_tissue: Smallest share of tissue in a patch, in [0, 1].
        quality: JPEG quality, 1 to 100; ``benchmarks/store_quality.py`` shows what 90 keeps.
        assume_mpp: Level-0 µm per pixel of slides that state neither µm/px nor an objective power.
        check_patches: Patches a scale that are decoded again by the other reader of the slide: a slide whose readers
            disagree is set aside. 0 checks none.
        workers: Slides cut at the same time, each by a process of its own.
        scheduler: Address of a Dask scheduler, ``tcp://host:port``, whose workers do it instead.
        dry_run: Only say how many patches, bytes and seconds it would be; write nothing.

    Returns:
        A row for each slide, as in the manifest.

    Raises:
        SlideError: There is no slide, or two of one name.
        TilingError: A setting is out of range.
        CheckError: check_patches is negative.
        CacheError: The folder holds stores made with other settings, or cannot be written.
    """
    check_count(check_patches)
    files, out = find_slides(slides), Path(out)
    scales = parse_scales(mpp, files, assume_mpp)
    tiling = Tiling(scales, patch_size, overlap, min_tissue, quality, assume_mpp)
    check(tiling)
    jobs = [Job(file, out, tiling, max(1, workers // len(files)), check_patches) for file in files]
    if dry_run:
        _refuse_other_origins(jobs)
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
    """Make the stores that are not there yet, and put a row for each slide into the manifest.

    Args:
        jobs: The stores.
        out: Their folder; made where it does not exist.
        workers: Stores made at the same time, each by a process of its own.
        scheduler: Address of a Dask scheduler whose workers do it instead.
        failed: Rows of slides that were set aside before.

    Returns:
        A row for each slide.

    Raises:
        CacheError: A store is there that was made otherwise, or the folder cannot be written.
    """
    failed = [*failed, *(_name_too_long(job) for job in jobs if _has_long_name(job))]
    jobs = [job for job in jobs if not _has_long_name(job)]
    _refuse_other_origins(jobs)
    _make_folder(out)
    earlier = read_manifest(out)
    rows = [*failed, *(describe(job, earlier) for job in jobs if job.store.exists())]
    update_manifest(out, rows)
    todo = {job.slide.name: job for job in jobs if not job.store.exists()}
    new = _share(todo, workers, scheduler)
    total = len(jobs) + len(failed)
    for row in _watch(new, "caching", total, ready=total - len(todo)):
        _refuse_other_origins([todo[row.slide]])  # another process may have made it, and otherwise
        rows.append(row)
    if todo:
        _draw_sheet(out)
    return _report(rows)


def _share(jobs: Mapping[str, StoreJob], workers: int, scheduler: str | None) -> Iterator[CachedSlide]:
    """Make the stores that no other process is making, then wait for those that one is; ``jobs`` by slide."""
    claimed = []
    for row in run_jobs(try_store, list(jobs.values()), workers, scheduler):
        if row.status == "claimed":
            claimed.append(jobs[row.slide])
        else:
            yield row
    yield from run_jobs(make_store, claimed, workers, scheduler)


def _has_long_name(job: StoreJob) -> bool:
    return len(os.fsencode(job.store.name)) > _LONGEST


def _name_too_long(job: StoreJob) -> CachedSlide:
    reason = f"{job.slide.path}: file systems take no name as long as its store's; shorten it to 200 letters"
    return CachedSlide(job.slide.name, "failed", reason)


def _refuse_other_origins(jobs: Sequence[StoreJob]) -> None:
    """Refuse stores that were made from something else, or in another way: bags must not mix them."""
    for job in jobs:
        if not job.store.exists():
            continue
        if changed := list(_differences(PatchStore(job.store).attributes, job.origin())):
            raise CacheError(
                f"{job.store} was made from something else, or with other settings: {'; '.join(changed)}."
                " Give another folder, the old settings, or remove this store"
            )


def _differences(made: Mapping[str, object], wanted: Mapping[str, object]) -> Iterator[str]:
    for key, value in wanted.items():
        there = made.get(key)
        if isinstance(value, Mapping):
            yield from _differences(there if isinstance(there, Mapping) else {}, value)
        elif there != value:
            yield f"{key} {there} there, {value} now"


def verify(cache: Path) -> list[str]:
    """Check every checksum of every store of a cache, and decode every patch.

    Args:
        cache: Folder of the stores.

    Returns:
        One sentence for each problem, naming slide, scale and patch.

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
    """Show slides, patches a second and failures while rows come in."""
    started, patches, failed = time.perf_counter(), 0, 0
    with show_progress(doing, total, "slides", ready=ready) as progress:
        for row in rows:
            patches += row.num_patches
            failed += row.status == "failed"
            speed = f"{patches / (time.perf_counter() - started):.0f} patches/s"
            progress.advance(f"{speed}, {failed} failed" if failed else speed)
            yield row


def _report(rows: Sequence[CachedSlide]) -> list[CachedSlide]:
    for row in rows:
        if row.status == "failed":
            logger.warning("set aside %s: %s", row.slide, row.reason)
    done = [row for row in rows if row.status != "failed"]
    logger.info(
        "%d slides, %d patches, %.1f MB, %.0f s of work; %d set aside",
        len(done),
        sum(row.num_patches for row in done),
        sum(row.bytes for row in done) / 1e6,
        sum(row.seconds for row in done),
        len(rows) - len(done),
    )
    return sorted(rows)


def _draw_sheet(out: Path) -> None:
    """Draw all slides that no process is at; of processes that end together the last one draws them all."""
    with hold(out / ".overview.lock", wait=True):
        pictures = [
            (path.stem, path) for path in sorted((out / OVERVIEWS).glob("*.png")) if _is_done(path, out)
        ]
        if pictures:
            with atomic_write(out / "overview.png") as partial:
                draw_sheet(pictures).save(partial, format="png")


def _is_done(picture: Path, out: Path) -> bool:
    """Whether a slide's picture is whole; one that a killed process left behind is drawn again."""
    store = out / f"{picture.stem}.zarr"
    # the order matters: who makes a store claims it before, and lets go of it after the picture
    if not store.exists() or is_held(out / CLAIMS / f"{picture.stem}.lock"):
        return False
    try:
        with Image.open(picture) as image:
            image.load()
    except (OSError, SyntaxError):  # Pillow's words for a PNG that breaks off
        draw_overview(PatchStore(store)).save(picture)
    return True


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):  # its name is nobody else's, on whatever machine
            pass
    except OSError as error:
        raise CacheError(
            f"{out} cannot be written ({error.strerror}); choose a folder that you may write to"
        ) from error
