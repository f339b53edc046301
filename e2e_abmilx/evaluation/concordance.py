"""Harrell's C-index, fast enough to be bootstrapped."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.evaluation.columns import aligned
from e2e_abmilx.evaluation.estimators import Estimator, Weight, ratio

Rows = NDArray[np.intp]


class _Level(NamedTuple):
    """The rows in blocks of 2^l neighbours in time, and the events that are compared with one whole block.

    Attributes:
        order: All rows, block after block, by rising risk inside each, shape ``(n,)``.
        events: Rows of those events, shape ``(e,)``.
        start: Where the block of each event starts in ``order``, shape ``(e,)``.
        tied: Where that block reaches the risk of the event, shape ``(e,)``.
        above: Where that block exceeds the risk of the event, shape ``(e,)``.
    """

    order: Rows
    events: Rows
    start: Rows
    tied: Rows
    above: Rows


class Concordance(Estimator):
    """Share of the comparable pairs in which the higher risk meets the earlier event; equal risks count one half.

    An event is compared with all rows after it, where a censoring at the time of an event is after it. Sorted by time
    these rows are a suffix, and a suffix is at most one block of each size 2^l. As every block is sorted by risk
    beforehand, a resample costs O(n log n).

    Args:
        risk: Higher means an earlier event, shape ``(n,)``.
        time: Months until the event or the censoring, shape ``(n,)``.
        event: 1 where the event happened, 0 where it was censored, shape ``(n,)``.
    """

    def __init__(self, risk: ArrayLike, time: ArrayLike, event: ArrayLike) -> None:
        risks, times, events = aligned(risk=risk, time=time, event=event)
        self.rows = len(risks)
        moment = 2 * np.unique(times, return_inverse=True)[1] + ~events.astype(bool)
        rank = np.unique(risks, return_inverse=True)[1]
        self.by_time = np.argsort(moment)
        self.events = np.flatnonzero(events)
        self.suffix = np.searchsorted(moment[self.by_time], moment[self.events], side="right")
        self.levels = [self._level(level, rank) for level in range((self.rows - 1).bit_length())]

    def _level(self, level: int, rank: Rows) -> _Level:
        """Find for each event its one block of 2^level rows, if its suffix has a block of that size."""
        block = np.arange(self.rows) >> level
        key = block * self.rows + rank[self.by_time]
        order = np.argsort(key)
        first = -(-self.suffix >> level)  # the first block that lies in the suffix
        needed = (first % 2 == 1) & (first << level < self.rows)
        events, first = self.events[needed], first[needed]
        wanted = first * self.rows + rank[events]
        return _Level(
            self.by_time[order],
            events,
            first << level,
            np.searchsorted(key[order], wanted, side="left"),
            np.searchsorted(key[order], wanted, side="right"),
        )

    def __call__(self, weight: Weight) -> float:
        """Return the C-index; NaN where no pair can be compared."""
        after = _sums(weight[self.by_time])
        comparable = weight[self.events] @ (after[-1] - after[self.suffix])
        agreed = sum(self._agreed(level, weight) for level in self.levels)
        return ratio(agreed, float(comparable))

    def _agreed(self, level: _Level, weight: Weight) -> float:
        """Count the pairs of events and their blocks where the event has the higher risk, equal ones as halves."""
        sums = _sums(weight[level.order])
        lower = sums[level.tied] + sums[level.above] - 2 * sums[level.start]
        return float(weight[level.events] @ lower) / 2


def _sums(weight: Weight) -> Weight:
    """Sums of the first 0, 1, … n weights, shape ``(n + 1,)``."""
    return np.concatenate([[0], np.cumsum(weight)])
