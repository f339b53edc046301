"""Workers, which run the jobs of many slides: this process, worker processes, or a Dask cluster."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from e2e_abmilx.cache.jobs import StoreJob
from e2e_abmilx.cache.manifest import CachedSlide, update_manifest
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.locks import is_held

J = TypeVar("J", bound=StoreJob)
Task = Callable[[J], CachedSlide]


class WorkerError(InputError):
    """The workers cannot be started or reached."""


def run_jobs(task: Task[J], jobs: Sequence[J], workers: int, scheduler: str | None) -> Iterator[CachedSlide]:
    """Run a task, which worker processes can import, on every job; yield rows in the order in which they are finished.

    With one of ``workers``, the work is done in this process. ``scheduler`` is the address of a Dask scheduler, whose
    workers are used instead.

    Raises:
        WorkerError: Dask is not installed, or no scheduler answers.
    """
    if scheduler is not None:
        return _run_on_dask(task, jobs, scheduler)
    if workers <= 1 or len(jobs) <= 1:
        return map(task, jobs)
    return _run_in_processes(task, jobs, workers)


def _run_in_processes(task: Task[J], jobs: Sequence[J], workers: int) -> Iterator[CachedSlide]:
    """Run in worker processes; a slide whose process dies twice is recorded as failed, and the others continue."""
    pending = list(jobs)
    while pending:
        try:
            with _pool(min(workers, len(pending))) as pool:
                futures = {pool.submit(task, job): job for job in pending}
                try:
                    for future in as_completed(futures):
                        row = future.result()
                        pending.remove(futures[future])
                        yield row
                finally:  # a caller that stops early does not want the rest done
                    pool.shutdown(wait=False, cancel_futures=True)
        except BrokenProcessPool:
            _check_that_workers_start()
            suspects = [job for job in pending if is_held(job.claim) is False] or pending[:1]
            for job in suspects:
                pending.remove(job)
                yield _run_alone(task, job)


def _check_that_workers_start() -> None:
    """Refuse a script that its workers cannot import, which looks like a slide that kills them."""
    try:
        with _pool(1) as pool:
            pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise WorkerError(
            "worker processes die before they begin: each imports the script that starts it, so the script must start"
            ' them below `if __name__ == "__main__":`; or use workers=1'
        ) from error


def _run_alone(task: Task[J], job: J) -> CachedSlide:
    """Run one job again in a process of its own; record it as failed if that process dies, too."""
    try:
        with _pool(1) as pool:
            return pool.submit(task, job).result()
    except BrokenProcessPool:
        why = "the process that read it died: out of memory, or a decoder crashed on a damaged file"
        return _record_failure(job, f"{job.slide.path}: {why}")


def _record_failure(job: StoreJob, reason: str) -> CachedSlide:
    row = CachedSlide(job.slide.name, "failed", reason)
    update_manifest(job.out, [row])
    return row


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawn, because a forked copy of a process whose threads hold locks may hang
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _run_on_dask(task: Task[J], jobs: Sequence[J], scheduler: str) -> Iterator[CachedSlide]:
    try:
        from distributed import Client, KilledWorker
        from distributed import as_completed as as_dask_completes
    except ImportError as error:
        raise WorkerError("scheduler needs Dask; `pip install e2e-abmilx[dask]`") from error
    try:
        client = Client(scheduler, timeout=30)
    except OSError as error:
        raise WorkerError(f"no Dask scheduler answers at {scheduler} ({error}); check the address") from error
    with client:
        futures = {client.submit(task, job, pure=False): job for job in jobs}
        for future in as_dask_completes(futures):
            try:
                yield future.result()
            except KilledWorker as error:
                yield _record_failure(futures[future], f"its Dask workers died: {error}")
