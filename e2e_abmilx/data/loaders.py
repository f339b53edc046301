"""Loaders of bags: how long they were waited for, and how much of the memory they take."""

import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from e2e_abmilx.data.bag import NOTHING, Bag, BagSource
from e2e_abmilx.errors import InputError

_SHARED_MEMORY = Path("/dev/shm")
_AHEAD = 2  # batches that each reader has ready or in work, where memory allows
_MOST_BYTES = 4 * 2**30  # of batches of a loader that are ready or in work, of all readers of a machine


class BagLoader(DataLoader[Bag]):
    """A ``DataLoader`` that knows how long it was waited for, and what to do when shared memory is full.

    Attributes:
        clock: Of the present pass, or of the last one.
    """

    clock: "WaitClock"

    def __iter__(self) -> Iterator[Bag]:  # type: ignore[override] # the base class promises its own iterator
        self.clock = WaitClock()
        batches = super().__iter__()
        while True:
            self.clock.ask()
            try:
                batch = next(batches, None)
            except (RuntimeError, OSError, EOFError) as error:
                if self.num_workers and _is_bus_error(error, getattr(batches, "_workers", ())):
                    raise InputError(self._advice()) from error
                raise
            self.clock.receive()
            if batch is None:
                return
            yield batch

    def _advice(self) -> str:
        """What to do when a reader found no room for a batch."""
        smaller = self.dataset.size_settings if isinstance(self.dataset, BagSource) else ""
        return (
            f"a reader was killed by a bus error, which is how a full {_SHARED_MEMORY} shows ({_room()}); data.num_workers"
            f" {self.num_workers} put up to {self.prefetch_factor} batches each into it: lower data.num_workers"
            f"{' or ' + smaller if smaller else ''}, or give a container more of it (docker run --shm-size 16g)"
        )


class WaitClock:
    """How long a device had nothing to do because the next batch was not there.

    On a CPU that is the time between :meth:`ask` and :meth:`receive`. A CUDA device may still be busy with what was
    queued before, and then waits for nothing: there it is the time between two events, one behind all that was queued
    when the batch was asked for, and one behind all that was queued when it came. Reading the clock keeps nobody
    waiting: pairs of events that the device has not reached yet count the next time.
    """

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self._waited_s = 0.0
        self._asked = 0.0
        self._events: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._asked_event: torch.cuda.Event | None = None

    def ask(self) -> None:
        """The next batch is asked for."""
        self._asked = time.perf_counter()
        self._asked_event = _event()

    def receive(self) -> None:
        """It has come."""
        received = _event()
        if self._asked_event is None or received is None:
            self._waited_s += time.perf_counter() - self._asked
        else:
            self._events.append((self._asked_event, received))

    @property
    def waited_s(self) -> float:
        """Seconds so far."""
        while self._events and self._events[0][1].query():
            asked, received = self._events.popleft()
            self._waited_s += asked.elapsed_time(received) / 1000
        return self._waited_s


class Padded(BagSource):
    """A data set with one more item, that is nothing: what a process gets that has less to do than others.

    Args:
        bags: The data set.
    """

    def __init__(self, bags: Dataset[Bag]) -> None:
        self.bags = bags
        if isinstance(bags, BagSource):
            self.size_settings = bags.size_settings

    def __len__(self) -> int:
        return len(self.bags)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Bag:
        """Return an item, or nothing."""
        return self.bags[index] if index < len(self) else NOTHING

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest item."""
        return self.bags.largest_bytes if isinstance(self.bags, BagSource) else 0


class Readers(NamedTuple):
    """How many processes read for one training process, and how far ahead of it.

    Attributes:
        workers: Processes that read.
        ahead: Batches that each of them has ready or in work.
    """

    workers: int
    ahead: int


def plan_readers(workers: int, batch_bytes: int, *, processes: int = 1) -> Readers:
    """Bound what lies between readers and training: 4 GiB a machine and loader, and a quarter of the free shared memory.

    One reader with one batch is the least that there can be, however large a batch is.

    Args:
        workers: Processes that should read.
        batch_bytes: Bytes of the largest batch.
        processes: Training processes on this machine, which share its memory.
    """
    if workers == 0 or batch_bytes == 0:
        return Readers(workers, _AHEAD)
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else 4 * _MOST_BYTES
    fitting = int(min(_MOST_BYTES, free / 4) / processes / batch_bytes)
    workers = max(1, min(workers, fitting))
    return Readers(workers, max(1, min(_AHEAD, fitting // workers)))


def recommended_workers(processes: int = 1) -> int:
    """How many processes should read bags for each training process of this machine.

    A GPU leaves the cores to the readers: all but one of its share of those that the process may use, at most 16. A CPU that trains needs its cores
    itself: reading a patch takes it a twentieth of the time of training on it, so that one reader does.

    Args:
        processes: Training processes on this machine.
    """
    if not torch.cuda.is_available():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores // processes - 1))


def _event() -> torch.cuda.Event | None:
    """An event behind all that is queued on the device now; None without a CUDA device in use."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _is_bus_error(error: BaseException, readers: Sequence[BaseProcess]) -> bool:
    """Whether a reader was killed by a bus error.

    PyTorch says so where it hears of the death before anything else; often a connection that breaks off comes first.
    """
    try:
        if isinstance(error, (OSError, EOFError)):
            time.sleep(1.0)  # the reader is about to die
    except RuntimeError as death:
        error = death
    killed = any(reader.exitcode == -signal.SIGBUS for reader in readers)
    return killed or "Bus error" in f"{error} {error.__cause__}"


def _room() -> str:
    if not _SHARED_MEMORY.is_dir():
        return "not there"
    return f"{shutil.disk_usage(_SHARED_MEMORY).total / 1e9:.1f} GB in all"
