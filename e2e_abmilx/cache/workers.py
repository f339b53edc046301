"""Run jobs on slides: in this process, in worker processes, or on a Dask cluster."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from e2e_abmilx.cache.build import StoreJob
from e2e_abmilx.cache.manifest import CachedSlide, update_manifest
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.locks import is_held

J = TypeVar("J", bound=StoreJob)
Task = Callable[[J], CachedSlide]


class WorkerError(InputError):
    """Workers that cannot be had."""


def run_jobs(task: Task[J], jobs: Sequence[J], workers: int, scheduler: str | None) -> Iterator[CachedSlide]:
    """Run a task on every job; rows come as they are done.

    Args:
        task: What to do with a slide; a function that worker processes can import.
        jobs: The slides.
        workers: Processes; one stays in this process.
        scheduler: Address of a Dask scheduler whose workers are used instead.

    Raises:
        WorkerError: Dask is not installed, or no scheduler answers.
    """
    if scheduler is not None:
        return _run_on_dask(task, jobs, scheduler)
    if workers <= 1 or len(jobs) <= 1:
        return map(task, jobs)
    return _run_in_processes(task, jobs, workers)


def _run_in_processes(task: Task[J], jobs: Sequence[J], workers: int) -> Iterator[CachedSlide]:
    """Run in worker processes; a slide whose process dies twice is set aside, the others go on."""
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
                finally:  # whoever stops listening does not want the rest done
                    pool.shutdown(wait=False, cancel_futures=True)
        except BrokenProcessPool:
            _check_that_workers_start()
            suspects = [job for job in pending if is_held(job.claim) is False] or pending[:1]
            for job in suspects:
                pending.remove(job)
                yield _run_alone(task, job)


def _check_that_workers_start() -> None:
    """Tell a script that its workers cannot import from a slide that kills them."""
    try:
        with _pool(1) as pool:
            pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise WorkerError(
            "worker processes die before they begin: they import the script that starts them, which therefore must do"
            ' so below `if __name__ == "__main__":`; or give workers=1'
        ) from error


def _run_alone(task: Task[J], job: J) -> CachedSlide:
    try:
        with _pool(1) as pool:
            row: CachedSlide = pool.submit(task, job).result()
            return row
    except BrokenProcessPool:
        why = "the process that read it died: out of memory, or a decoder crashed on a damaged file"
        row = CachedSlide(job.slide.name, "failed", f"{job.slide.path}: {why}")
        update_manifest(job.out, [row])
        return row


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawn: a forked copy of a process whose threads hold locks may hang
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _run_on_dask(task: Task[J], jobs: Sequence[J], scheduler: str) -> Iterator[CachedSlide]:
    try:
        from distributed import Client, KilledWorker
        from distributed import as_completed as as_dask_completes
    except ImportError as error:
        raise WorkerError("a scheduler needs Dask; `pip install e2e-abmilx[dask]`") from error
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
                row = CachedSlide(futures[future].slide.name, "failed", f"its Dask workers died: {error}")
                update_manifest(futures[future].out, [row])
                yield row
