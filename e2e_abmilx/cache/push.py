"""A cache → a bucket: many stores at once, and the cohort index last."""

import logging
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from e2e_abmilx.cache.jobs import CacheError
from e2e_abmilx.cache.manifest import CachedSlide, add_to_manifest, read_manifest
from e2e_abmilx.cache.sending import SEED, push_store
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.progress import show_progress
from e2e_abmilx.store import CohortIndex, StoreFacts
from e2e_abmilx.store.cohort_index import add_to_index
from e2e_abmilx.store.locations import ObjectUrl, as_location, as_writable
from e2e_abmilx.store.object_errors import AccessError

logger = logging.getLogger(__name__)


def push(cache: str | Path, to: str, *, seed: int = SEED, workers: int = 8) -> list[str]:
    """Copy a cache into a bucket, for training from there.

    Every patch is checked before its store is sent. The JPEG streams stay as they are; the patches of each scale are put
    into a random order, which the attribute ``patch_order_seed`` records, so that a few contiguous runs are a random sample
    (``RunDraw``). Stores that are there already are not sent again, so an interrupted push is continued by the same
    command; a store that is there and differs is refused. Readers see a store when all of it is there. The rows of
    the manifest are copied, too.

    Args:
        cache: Folder of the stores.
        to: Where to, such as ``s3://bucket/cohort``; credentials come from the environment.
        seed: Seed of the order.
        workers: Number of stores sent at the same time.

    Returns:
        One sentence per store that was not sent.

    Raises:
        CacheError: The folder holds no store, or ``to`` is no bucket.
        StoreError: The bucket cannot be read or written.
    """
    folder, source = as_writable(to), as_location(cache)
    if isinstance(source, ObjectUrl):
        raise CacheError(
            f"{source} is in a bucket already; push copies a folder, and `aws s3 sync` or rclone copies one bucket into"
            " another"
        )
    if not isinstance(folder, ObjectUrl):
        raise CacheError(f"{to} is a folder; push copies into object storage, such as s3://bucket/cohort")
    if workers < 1:
        raise CacheError(f"workers is {workers}; it counts stores sent at the same time and must be at least 1")
    names = CohortIndex(source).slides()
    if not names:
        raise CacheError(f"{source} holds no patch store; check the path")
    there = set(CohortIndex(folder).slides())  # credentials and address are refused once, and not for each store
    done: dict[str, StoreFacts] = {}
    failed = []
    with ThreadPoolExecutor(workers) as pool, show_progress("pushing", len(names), "slides") as progress:
        jobs = {pool.submit(push_store, source, folder, name, seed): name for name in names}
        try:
            for job in as_completed(jobs):
                try:
                    done[jobs[job]] = job.result()
                except AccessError:
                    raise
                except InputError as error:
                    logger.warning("%s", error)
                    failed.append(f"{jobs[job]}: {error}")
                progress.advance(f"{len(failed)} failed" if failed else "")
        finally:
            pool.shutdown(cancel_futures=True)
    add_to_index(folder, done)
    rows = [row for row in read_manifest(source).values() if row.slide in done or _is_failure(row, there)]
    if rows:
        add_to_manifest(folder, rows)
    logger.info("%d slides are in %s", len(done), folder)
    return sorted(failed)


def _is_failure(row: CachedSlide, there: Collection[str]) -> bool:
    """Return whether a slide has failed, and is not in the bucket from another cache either."""
    return row.status == "failed" and row.slide not in there
