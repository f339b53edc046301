"""Slides → stores in a bucket: each is made in a temporary folder, sent and removed, so that no disk holds the cohort.

A store in the bucket is whole if its ``zarr.json`` is there: that, and not index or manifest, says which are to be made.
So a run that was killed has lost nothing, although both files are only written now and then. Both are replaced only if
nobody else has replaced them since they were read, so several machines may add to them at once.
"""

import dataclasses
import functools
import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from e2e_abmilx.cache.jobs import StoreJob, describe_pushed, make_store, remove
from e2e_abmilx.cache.manifest import CachedSlide, add_to_manifest, read_manifest
from e2e_abmilx.cache.origins import refuse_other_origin
from e2e_abmilx.cache.rows import watch
from e2e_abmilx.cache.sending import SEED, push_store
from e2e_abmilx.cache.workers import run_jobs
from e2e_abmilx.io.scratch import scratch
from e2e_abmilx.store import StoreError, StoreFacts, objects
from e2e_abmilx.store.cohort_index import add_to_index, read_facts
from e2e_abmilx.store.locations import ObjectUrl
from e2e_abmilx.store.object_errors import AccessError

logger = logging.getLogger(__name__)

SAVE_S = 60.0  # between two writes of index and manifest


def make_in_bucket(
    jobs: Sequence[StoreJob], folder: ObjectUrl, workers: int, scheduler: str | None, failed: Sequence[CachedSlide]
) -> list[CachedSlide]:
    """Make the stores that are not in the bucket yet; the jobs' own folder is ignored. Return one row per slide.

    Raises:
        CacheError: A store was made from another source or with other settings.
        AccessError: Credentials are missing, have expired or lack a permission; what is finished stays.
        StoreError: The bucket cannot be read or written.
    """
    there = find_pushed(jobs, folder)
    earlier = read_manifest(folder)
    with ThreadPoolExecutor(objects.CONNECTIONS) as pool:
        known = [job for job in jobs if job.slide.name in there]
        rows = list(pool.map(lambda job: describe_pushed(job, folder, earlier, there[job.slide.name]), known))
    rows = [*failed, *rows]
    add_to_index(folder, there)
    # also without rows, so that a bucket that cannot be written is refused before anything is made
    add_to_manifest(folder, [row for row in rows if earlier.get(row.slide) != row])
    todo = [job for job in jobs if job.slide.name not in there]
    with scratch() as local:
        task = functools.partial(_make_on_own_disk if scheduler else _make, folder)
        made = run_jobs(task, [dataclasses.replace(job, out=local) for job in todo], workers, scheduler)
        total = len(jobs) + len(failed)
        return rows + _record(folder, watch(made, "caching", total, ready=total - len(todo)))


def find_pushed(jobs: Sequence[StoreJob], folder: ObjectUrl) -> dict[str, StoreFacts]:
    """Return the facts of the stores that are in the bucket already.

    Raises:
        CacheError: One was made from another source or with other settings.
    """
    begun = set(objects.list_folders(folder))
    there = read_facts(folder, [job.slide.name for job in jobs if f"{job.slide.name}.zarr" in begun])
    for job in jobs:
        if facts := there.get(job.slide.name):
            refuse_other_origin(folder / f"{facts.name}.zarr", facts.attributes, job.origin())
    return there


def _make(folder: ObjectUrl, job: StoreJob) -> CachedSlide:
    """Make and send a store, in a worker process; return its row."""
    try:
        row = make_store(job)
        if row.status == "done":
            push_store(job.out, folder, job.slide.name, SEED)
    except AccessError:
        raise  # every other slide would fail, too
    except Exception as error:  # noqa: BLE001 - whatever goes wrong with one slide must not stop the others
        return CachedSlide(job.slide.name, "failed", f"{job.slide.path}: {error}")
    finally:
        remove(job)
    return row


def _make_on_own_disk(folder: ObjectUrl, job: StoreJob) -> CachedSlide:
    """As :func:`_make`, on a machine that may not have the folder of the job."""
    with scratch() as local:
        return _make(folder, dataclasses.replace(job, out=local))


def _record(folder: ObjectUrl, made: Iterable[CachedSlide]) -> list[CachedSlide]:
    """Write rows into index and manifest, now and then while they arrive and at the end; return them."""
    rows: list[CachedSlide] = []
    saved, due = 0, 0.0  # the first at once, so that a reader finds an index soon
    for row in made:
        rows.append(row)
        if time.monotonic() >= due:
            try:
                _save(folder, rows[saved:])
                saved = len(rows)
            except AccessError:
                raise
            except StoreError as error:
                logger.warning("%s; it is tried again in %.0f s", error, SAVE_S)
            due = time.monotonic() + SAVE_S
    if rows[saved:]:
        _save(folder, rows[saved:])
    return rows


def _save(folder: ObjectUrl, rows: Sequence[CachedSlide]) -> None:
    add_to_index(folder, read_facts(folder, [row.slide for row in rows if row.status == "done"]))
    add_to_manifest(folder, rows)
