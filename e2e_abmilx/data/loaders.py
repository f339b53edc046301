"""Loaders of bags, which measure waiting time and limit the memory of prefetched batches."""

import multiprocessing
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from e2e_abmilx.data.ahead import LookAhead
from e2e_abmilx.data.bag import EMPTY_BAG, Bag, BagSource
from e2e_abmilx.errors import InputError

_SHARED_MEMORY = Path("/dev/shm")
_PREFETCH = 2  # batches that each worker prefetches, if memory allows
_MAX_BYTES = 4 * 2**30  # of all batches that a loader prefetches on one machine


class BagLoader(DataLoader[Bag]):
    """A ``DataLoader`` that measures waiting time and explains the errors of workers.

    Attributes:
        clock: Clock of the current or last pass.
        classes: The classes in the order in which the labels of the bags number them; empty if unknown.
        before_pass: Called before each pass, before any worker starts; None for nothing.
    """

    clock: "WaitClock"
    classes: tuple[str, ...] = ()
    before_pass: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[Bag]:  # type: ignore[override]
        if self.before_pass is not None:
            self.before_pass()
        self.clock = WaitClock()
        batches = super().__iter__()
        while True:
            self.clock.ask()
            try:
                batch = next(batches, None)
            except InputError as error:
                if reason := _reason_of_worker(error):
                    raise type(error)(reason) from error
                raise
            except (RuntimeError, OSError, EOFError) as error:
                if self.num_workers and _is_bus_error(error, getattr(batches, "_workers", ())):
                    raise InputError(self._advice()) from error
                raise
            self.clock.receive()
            if batch is None:
                return
            yield batch

    @property
    def _index_sampler(self) -> Any:  # noqa: ANN401 - what PyTorch iterates over, sampler or batch sampler
        indices = super()._index_sampler
        ahead = isinstance(self.dataset, BagSource) and self.dataset.reads_objects and self.batch_sampler is not None
        return LookAhead(indices, self.num_workers) if ahead else indices

    def _advice(self) -> str:
        """Return the message for a worker that found no room for a batch."""
        exists = _SHARED_MEMORY.is_dir()
        room = f"{shutil.disk_usage(_SHARED_MEMORY).total / 1e9:.1f} GB in all" if exists else "which does not exist"
        smaller = self.dataset.size_settings if isinstance(self.dataset, BagSource) else ""
        return (
            f"a worker was killed by a bus error, which indicates that {_SHARED_MEMORY} is full ({room}); each of the"
            f" data.num_workers {self.num_workers} keeps up to {self.prefetch_factor} batches in it: lower data.num_workers"
            f"{' or ' + smaller if smaller else ''}, or give the container more (docker run --shm-size 16g)"
        )


class WaitClock:
    """The time for which a device was idle because the next batch was not ready.

    On a CPU this is the time between :meth:`ask` and :meth:`receive`. A CUDA device may still be busy with queued work,
    and is then not idle. There it is the time between two CUDA events, one queued when the batch was requested and one
    when it arrived. Reading the clock does not synchronise: events that the device has not reached yet are counted at
    the next reading.
    """

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self._waited_s = 0.0
        self._asked = 0.0
        self._events: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._asked_event: torch.cuda.Event | None = None

    def ask(self) -> None:
        """Note that the next batch is requested."""
        self._asked = time.perf_counter()
        self._asked_event = _event()

    def receive(self) -> None:
        """Note that the batch has arrived."""
        received = _event()
        if self._asked_event is None or received is None:
            self._waited_s += time.perf_counter() - self._asked
        else:
            self._events.append((self._asked_event, received))

    @property
    def waited_s(self) -> float:
        """Seconds of waiting so far."""
        while self._events and self._events[0][1].query():
            asked, received = self._events.popleft()
            self._waited_s += asked.elapsed_time(received) / 1000
        return self._waited_s


class Padded(BagSource):
    """A dataset with an empty bag appended, for processes that have fewer items than others."""

    def __init__(self, bags: Dataset[Bag]) -> None:
        self.bags = bags
        if isinstance(bags, BagSource):
            self.size_settings, self.reads_objects = bags.size_settings, bags.reads_objects

    def __len__(self) -> int:
        return len(self.bags)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Bag:
        """Return an item, or the empty bag."""
        return self.bags[index] if index < len(self) else EMPTY_BAG

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest item."""
        return self.bags.largest_bytes if isinstance(self.bags, BagSource) else 0


class Workers(NamedTuple):
    """The number of workers of a loader, and the number of batches that each of them prefetches."""

    num_workers: int
    prefetch_factor: int


def plan_workers(wanted: int, batch_bytes: int, *, processes: int = 1) -> Workers:
    """Limit prefetched batches to 4 GiB per machine and loader, and to a quarter of the free shared memory.

    At least one worker prefetches one batch, whatever its size.

    Args:
        wanted: Number of workers to use if memory allows.
        batch_bytes: Bytes of the largest batch; 0 if unknown.
        processes: Training processes on this machine, which share its memory.
    """
    if wanted == 0 or batch_bytes == 0:
        return Workers(wanted, _PREFETCH)
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else 4 * _MAX_BYTES
    fitting = int(min(_MAX_BYTES, free / 4) / processes / batch_bytes)
    num_workers = max(1, min(wanted, fitting))
    return Workers(num_workers, max(1, min(_PREFETCH, fitting // num_workers)))


def recommended_workers(processes: int = 1) -> int:
    """Return the recommended number of workers for each training process of this machine.

    With a GPU, it is the number of available cores per training process minus two, at most 16: the processes that train
    need two, for Python and for copies to pinned memory, or else the GPU waits for its next kernel. Without a GPU, it is
    one: training needs the cores, and reading a patch takes a twentieth of the time of training on it.
    """
    if not torch.cuda.is_available():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores // processes - 2))


def start_method(bags: Dataset[Bag]) -> str | None:
    """Return how the workers of a loader start; None for the default of the platform.

    Clients of object storage do not survive a fork, so workers are forked from a server that has read nothing.
    """
    if not (isinstance(bags, BagSource) and bags.reads_objects):
        return None
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload([__name__])  # imports PyTorch once, and not in each worker
    return "forkserver"


class WorkerStart:
    """What a data loading process does first: it takes the environment of the process that made the loader, and gives way.

    A fork server keeps the environment in which it was started, with credentials of a bucket that may have expired since.
    """

    def __init__(self) -> None:
        self._environment = dict(os.environ)

    def __call__(self, worker: int) -> None:
        """Take the environment; lower the priority of the process below that of the one that keeps the GPU busy."""
        os.environ.update(self._environment)
        if torch.cuda.is_available() and hasattr(os, "nice"):
            os.nice(5)


def _event() -> torch.cuda.Event | None:
    """Record an event after all work queued on the device; None if no CUDA device is in use."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _reason_of_worker(error: InputError) -> str:
    """Return the message of an error of a worker, which PyTorch hides in the worker's traceback; empty for others."""
    text, name = str(error), f"\n{type(error).__module__}.{type(error).__qualname__}: "
    return text.rpartition(name)[2].strip() if text.startswith("Caught ") and name in text else ""


def _is_bus_error(error: BaseException, workers: Sequence[BaseProcess]) -> bool:
    """Return whether a worker was killed by a bus error.

    PyTorch reports this only if it notices the death first; often the broken connection is noticed earlier.
    """
    try:
        if isinstance(error, (OSError, EOFError)):
            time.sleep(1.0)  # the worker is about to die; PyTorch reports its death by a RuntimeError
    except RuntimeError as death:
        error = death
    killed = any(worker.exitcode == -signal.SIGBUS for worker in workers)
    return killed or "Bus error" in f"{error} {error.__cause__}"
