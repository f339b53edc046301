"""Areas under ROC curves that compare only rows of the same stratum."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.evaluation.columns import aligned
from e2e_abmilx.evaluation.estimators import Estimator, Weight, ratio


class AurocWithinStrata(Estimator):
    """Mean area under the ROC curve of some categories, each against all others, over pairs within one stratum.

    Of each category it is the fraction of the pairs of a row of the category and another row of the same stratum in
    which the former has the higher score; equal scores count one half. With a single stratum this is
    :class:`~e2e_abmilx.evaluation.estimators.Auroc`. A resample without such pairs of a counted category is undefined.

    Args:
        score: Of each category, shape ``(n, K)``.
        category: Of each row, 0 … K-1, shape ``(n,)``.
        stratum: Of each row, shape ``(n,)``; rows are compared if theirs are equal.
        counted: The categories to average over.
    """

    def __init__(self, score: ArrayLike, category: ArrayLike, stratum: ArrayLike, counted: Sequence[int]) -> None:
        scores, self.category = aligned(score=score, category=category)
        self.rows, self.counted = len(scores), counted
        number = np.unique(np.asarray(stratum), return_inverse=True)[1]
        self.places = {one: _Places(scores[:, one], number) for one in counted}

    def __call__(self, weight: Weight) -> float:
        """Return the mean area."""
        areas = [self.places[one].area(weight * (self.category == one), weight) for one in self.counted]
        return float(np.mean(areas)) if areas else np.nan


class _Places:
    """The order of rows by stratum, then by score."""

    def __init__(self, score: NDArray[np.float64], stratum: NDArray[np.int64]) -> None:
        distinct, rank = np.unique(score, return_inverse=True)
        key, self.place = np.unique(stratum * len(distinct) + rank, return_inverse=True)
        own = key // len(distinct)
        self.start = np.flatnonzero(np.diff(own, prepend=-1))  # where each stratum starts
        self.own = np.unique(own, return_inverse=True)[1]

    def area(self, positive: Weight, weight: Weight) -> float:
        """Return the fraction of pairs that are ordered rightly; NaN without pairs."""
        positives = np.bincount(self.place, positive, len(self.own))
        negatives = np.bincount(self.place, weight, len(self.own)) - positives
        before = np.cumsum(negatives) - negatives
        below = before - before[self.start][self.own]
        pairs = np.add.reduceat(positives, self.start) @ np.add.reduceat(negatives, self.start)
        return ratio(float(positives @ (below + negatives / 2)), float(pairs))
