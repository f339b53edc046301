"""In which order, and by which process, cases are seen."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import DistributedSampler

from e2e_abmilx.errors import InputError


class Draw(NamedTuple):
    """Which random bag: a draw is a function of these and the seed alone.

    Attributes:
        epoch: From 0.
        case: Position of the case in the data set.
        repeat: How often the case was drawn before in the same epoch.
    """

    epoch: int
    case: int
    repeat: int = 0


class Progress(NamedTuple):
    """How far a run was when it was interrupted.

    Attributes:
        epoch: The epoch that had begun last.
        draws: Draws that each process had had of it.
    """

    epoch: int
    draws: int


class EpochSampler(DistributedSampler[Draw]):
    """The cases of an epoch, shuffled by (seed, epoch) and shared out evenly among processes.

    Lightning leaves a ``DistributedSampler`` alone, and would deal out any other sampler a second time.

    Args:
        size: Number of cases.
        seed: Of the order.
        classes: Class of each case, to draw all classes equally often: an epoch is as long as without, cases of
            rare classes come more than once, and some of the frequent ones not at all. None draws each case once.
        progress: Where an interrupted run stopped: what it had of that epoch is left out.
        rank: Number of this process.
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
        progress: Progress | None = None,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        _check_share(size, num_replicas, "training")
        super().__init__(range(size), num_replicas=num_replicas, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.size = size
        self.classes = classes
        self.progress = progress

    def __len__(self) -> int:
        return self.size // self.num_replicas

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.seed, self.epoch])
        drawn = self._each_once(rng) if self.classes is None else self._balanced(rng, self.classes)
        start = self.progress.draws if self.progress and self.progress.epoch == self.epoch else 0
        stop = len(self) * self.num_replicas  # every process gets as many: none waits for the others
        return iter(drawn[self.rank : stop : self.num_replicas][start:])

    def _each_once(self, rng: np.random.Generator) -> list[Draw]:
        return [Draw(self.epoch, case) for case in rng.permutation(self.size).tolist()]

    def _balanced(self, rng: np.random.Generator, classes: Sequence[int]) -> list[Draw]:
        members = defaultdict(list)
        for case, label in enumerate(classes):
            members[label].append(case)
        drawn = []
        for number, label in enumerate(rng.permutation(sorted(members)).tolist()):
            cases = members[label]
            wanted = self.size // len(members) + (number < self.size % len(members))
            order = [
                Draw(self.epoch, case, earlier)
                for earlier in range(math.ceil(wanted / len(cases)))
                for case in rng.permutation(cases).tolist()
            ]
            drawn += order[:wanted]
        return [drawn[index] for index in rng.permutation(len(drawn))]


class CaseSampler(DistributedSampler[int]):
    """All parts of all cases once, those of a case together in one process.

    Cases go, longest first, to the process with the least to do. Processes with less get the index one behind
    the last as often as they need to take part in as many steps as the others.

    Args:
        case_of: Case of each part, parts of a case following each other.
        rank: Number of this process.
        num_replicas: Number of processes.

    Raises:
        InputError: There are fewer cases than processes.
    """

    def __init__(self, case_of: Sequence[int], *, rank: int = 0, num_replicas: int = 1) -> None:
        parts = defaultdict(list)
        for part, case in enumerate(case_of):
            parts[case].append(part)
        _check_share(len(parts), num_replicas, "evaluation")
        super().__init__(case_of, num_replicas=num_replicas, rank=rank, shuffle=False)  # type: ignore[arg-type]
        shares: list[list[int]] = [[] for _ in range(num_replicas)]
        for case in sorted(parts, key=lambda case: -len(parts[case])):
            min(shares, key=len).extend(parts[case])
        longest = max(map(len, shares))
        self.parts = sorted(shares[rank]) + [len(case_of)] * (longest - len(shares[rank]))

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[int]:
        return iter(self.parts)


def _check_share(cases: int, processes: int, purpose: str) -> None:
    if cases < processes:
        raise InputError(
            f"{cases} cases cannot be shared by {processes} processes in {purpose}; give each process a case:"
            " more cases, or fewer devices (trainer.devices)"
        )
