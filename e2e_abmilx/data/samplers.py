"""Samplers: the order in which cases are drawn, and their distribution among processes."""

import math
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

from e2e_abmilx.errors import InputError


class Draw(NamedTuple):
    """Index of a random bag; the bag is a function of the draw and the seed alone.

    Attributes:
        epoch: Epoch, from 0.
        case: Position of the case in the dataset.
        repeat: Number of earlier draws of the case in the same epoch.
    """

    epoch: int
    case: int
    repeat: int = 0

    @classmethod
    def of(cls, index: "Draw | int") -> "Draw":
        """Return a draw; an integer is the draw of that case in the first epoch."""
        return index if isinstance(index, Draw) else cls(0, index)

    def rng(self, seed: int, case_id: str) -> np.random.Generator:
        """Return the random generator of (seed, epoch, name of the case, repeat)."""
        return np.random.default_rng([seed, self.epoch, zlib.crc32(case_id.encode()), self.repeat])


class Progress(NamedTuple):
    """Progress of an interrupted run.

    Attributes:
        epoch: The last epoch that had begun.
        draws: Draws of that epoch that each process had completed.
    """

    epoch: int
    draws: int


class EpochSampler(DistributedSampler[Draw]):
    """The cases of an epoch, shuffled by (seed, epoch) and distributed evenly among processes.

    This is a ``DistributedSampler`` because Lightning would distribute any other sampler a second time.

    Args:
        size: Number of cases.
        seed: Seed of the order.
        classes: Class of each case, to draw all classes equally often. The length of an epoch does not change: cases of
            rare classes are drawn repeatedly, and some cases of frequent classes not at all. None draws each case once.
        times: Number of draws of each case in an epoch, which is as long as their sum; by default 1. Not used with
            ``classes``.
        progress: Progress of an interrupted run; completed draws of its epoch are skipped.
        rank: Rank of this process.
        num_replicas: Number of processes.

    Raises:
        InputError: There are fewer cases than processes.
    """

    def __init__(
        self,
        size: int,
        *,
        seed: int,
        classes: Sequence[int] | None = None,
        times: Sequence[int] | None = None,
        progress: Progress | None = None,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        _check_cases(size, num_replicas, "training")
        super().__init__(range(size), num_replicas=num_replicas, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.size = size
        self.classes = classes
        self.times = [1] * size if times is None else times
        self.progress = progress

    def __len__(self) -> int:
        draws = sum(self.times) if self.classes is None else self.size
        return draws // self.num_replicas

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.classes is None:
            draws = [Draw(self.epoch, case, repeat) for case, times in enumerate(self.times) for repeat in range(times)]
            drawn = [draws[index] for index in rng.permutation(len(draws))]
        else:
            drawn = self._balanced(rng, self.classes)
        start = self.progress.draws if self.progress and self.progress.epoch == self.epoch else 0
        stop = len(self) * self.num_replicas  # all processes get equally many, so none waits for another
        return iter(drawn[self.rank : stop : self.num_replicas][start:])

    def _balanced(self, rng: np.random.Generator, classes: Sequence[int]) -> list[Draw]:
        members = defaultdict(list)
        for case, label in enumerate(classes):
            members[label].append(case)
        drawn = []
        for number, label in enumerate(rng.permutation(sorted(members)).tolist()):
            cases = members[label]
            wanted = self.size // len(members) + (number < self.size % len(members))
            order = [
                Draw(self.epoch, case, repeat)
                for repeat in range(math.ceil(wanted / len(cases)))
                for case in rng.permutation(cases).tolist()
            ]
            drawn += order[:wanted]
        return [drawn[index] for index in rng.permutation(len(drawn))]


class CaseSampler(DistributedSampler[int]):
    """All parts of all cases, each once; the parts of a case stay in one process.

    Cases are assigned, longest first, to the process with the fewest parts. Processes with fewer parts are padded with
    the index one past the last part, so that all processes take equally many steps.

    Args:
        case_of: Case of each part; the parts of a case are consecutive.
        rank: Rank of this process.
        num_replicas: Number of processes.

    Raises:
        InputError: There are fewer cases than processes.
    """

    def __init__(self, case_of: Sequence[int], *, rank: int = 0, num_replicas: int = 1) -> None:
        parts = defaultdict(list)
        for part, case in enumerate(case_of):
            parts[case].append(part)
        _check_cases(len(parts), num_replicas, "evaluation")
        super().__init__(case_of, num_replicas=num_replicas, rank=rank, shuffle=False)  # type: ignore[arg-type]
        assigned: list[list[int]] = [[] for _ in range(num_replicas)]
        for case in sorted(parts, key=lambda case: -len(parts[case])):
            min(assigned, key=len).extend(parts[case])
        longest = max(map(len, assigned))
        self.parts = sorted(assigned[rank]) + [len(case_of)] * (longest - len(assigned[rank]))

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[int]:
        return iter(self.parts)


def rows_by_slide(chosen: NDArray[np.int64], sizes: Sequence[int]) -> list[NDArray[np.int64]]:
    """Divide positions among all patches of a case into the ascending rows of each slide.

    >>> [rows.tolist() for rows in rows_by_slide(np.array([7, 0, 5]), [5, 2, 1])]
    [[0], [0], [0]]
    """
    stops = np.cumsum(sizes)
    ordered = np.sort(chosen)
    parts = np.split(ordered, np.searchsorted(ordered, stops[:-1]))
    return [rows - (stop - size) for rows, stop, size in zip(parts, stops, sizes, strict=True)]


def _check_cases(cases: int, processes: int, purpose: str) -> None:
    if cases < processes:
        raise InputError(
            f"{cases} cases cannot be distributed among {processes} processes in {purpose}; every process needs a case:"
            " use more cases, or fewer devices (trainer.devices)"
        )
