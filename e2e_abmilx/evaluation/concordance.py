"""Harrell's C-index, in a form that can be bootstrapped quickly."""

import numpy as np
from numpy.typing import ArrayLike

from e2e_abmilx.evaluation.columns import aligned
from e2e_abmilx.evaluation.estimators import Estimator, Weight, ratio


class Concordance(Estimator):
    """Fraction of the comparable pairs in which the higher risk has the earlier event; equal risks count one half.

    An event is compared with all later rows; a censoring at the time of an event counts as later. In order of time
    these rows are a suffix, which is a union of blocks of 2^l neighbours, at most one block per size. The rows of each
    block are sorted by risk once. A resample then takes one cumulative sum over the blocks of all sizes, O(n log n) in
    time and memory.

    Args:
        risk: Higher means an earlier event, shape ``(n,)``.
        time: Months until the event or the censoring, shape ``(n,)``.
        event: 1 where the event happened, 0 where the case was censored, shape ``(n,)``.
    """

    def __init__(self, risk: ArrayLike, time: ArrayLike, event: ArrayLike) -> None:
        risks, times, events = aligned(risk=risk, time=time, event=event)
        self.rows = n = len(risks)
        moment = 2 * np.unique(times, return_inverse=True)[1] + ~events.astype(bool)
        by_time = np.argsort(moment)
        moment, rank = moment[by_time], np.unique(risks, return_inverse=True)[1][by_time]
        all_events = np.flatnonzero(moment % 2 == 0)
        first_later = np.searchsorted(moment, moment[all_events], side="right")
        orders, comparisons = [], []
        for level in range(n.bit_length()):
            key = (np.arange(n) >> level) * n + rank  # by block, then by risk
            order = np.argsort(key)
            block = -(-first_later >> level)  # the first block that lies in the suffix of each event
            in_union = (block % 2 == 1) & (block << level < n)
            event_rows, block = all_events[in_union], block[in_union]
            wanted = block * n + rank[event_rows]
            bounds = [
                block << level,
                np.minimum((block + 1) << level, n),
                np.searchsorted(key[order], wanted, side="left"),
                np.searchsorted(key[order], wanted, side="right"),
            ]
            orders.append(by_time[order])
            comparisons.append([by_time[event_rows], *(bound + level * n for bound in bounds)])
        self.order = np.concatenate(orders)
        # for each event and block: the event, and where the block starts, ends, reaches and exceeds its risk
        self.event, self.start, self.end, self.tied, self.above = np.concatenate(comparisons, axis=1)

    def __call__(self, weight: Weight) -> float:
        """Return the C-index; NaN if no pair is comparable."""
        sums = np.concatenate([[0], np.cumsum(weight[self.order])])
        drawn, before = weight[self.event], sums[self.start]
        comparable = drawn @ (sums[self.end] - before)
        doubled = drawn @ (sums[self.tied] + sums[self.above] - 2 * before)
        return ratio(float(doubled) / 2, float(comparable))
