"""Reading ahead: while a bag is used, a worker already reads its next ones, whose requests to a bucket take long to answer.

A ``DataLoader`` tells a worker only which bag to read now. :class:`LookAhead` tells it its next ones too, and
:class:`ReadAhead` reads them in threads. Bags are functions of their index, so nothing else changes.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from torch.utils.data import Sampler

T = TypeVar("T")

#: Batches that a worker reads at the same time besides the one that is asked for; benchmarks/bucket.py compares numbers.
DEPTH = 2


_THREADS = 16  # of a worker, at most; each reads a bag


class Batch(list[Any]):
    """The indices of a batch, and those that the same worker will read next."""

    upcoming: Sequence[Any] = ()


class LookAhead(Sampler[Batch]):
    """The batches of a sampler, each with the next ones of the same worker.

    Args:
        batches: The batches of indices.
        workers: Number of workers, which take turns; 0 counts as one.
    """

    def __init__(self, batches: Iterable[Sequence[Any]], workers: int) -> None:
        self._batches, self._workers = batches, max(workers, 1)

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type] # samplers of batches have a length

    def __iter__(self) -> Iterator[Batch]:
        waiting: deque[Sequence[Any]] = deque()
        for batch in self._batches:
            waiting.append(batch)
            if len(waiting) > self._workers * DEPTH:
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    def _next(self, waiting: deque[Sequence[Any]]) -> Batch:
        batch = Batch(waiting.popleft())
        following = range(self._workers - 1, len(waiting), self._workers)
        batch.upcoming = [index for place in following for index in waiting[place]]
        return batch


class ReadAhead(Generic[T]):
    """Items read by threads before they are asked for; for one process, which makes its own.

    Args:
        read: Returns the item of an index.
    """

    def __init__(self, read: Callable[[Any], T]) -> None:
        self._read = read
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="ahead")
        self._items: dict[Hashable, Future[T]] = {}

    def take(self, batch: Sequence[Any]) -> list[T]:
        """Return the items of a batch, and begin to read the upcoming ones, if the batch names some."""
        upcoming = getattr(batch, "upcoming", ())
        for index in (*batch, *upcoming):
            if index not in self._items:
                self._items[index] = self._pool.submit(self._read, index)
        items = [self._items[index].result() for index in batch]
        self._items = {index: item for index, item in self._items.items() if index in upcoming}
        return items
