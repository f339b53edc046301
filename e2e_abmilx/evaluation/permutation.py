"""Permutation tests, and their correction for several tests."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST_PERMUTATIONS = 999
_ENOUGH_EXCEEDED = 20  # permutations that reach the statistic, after which the p-value is clearly not small


def permutation_p_value(statistic: Callable[[NDArray[np.int64]], float], stratum: ArrayLike, *, seed: int = 0) -> float:
    """Return the p-value of a statistic that is large where two columns are associated, with one column permuted.

    Under independence within the strata, p is at most a with probability a. Of 999 permutations it is the fraction that
    reach the statistic, where the rows as they are count as one more. The test ends earlier when 20 permutations have
    reached it, and p is then their fraction (Besag and Clifford 1991, Sequential Monte Carlo p-values).

    Args:
        statistic: Called with the order, shape ``(n,)``, in which to take the rows of the permuted column; NaN counts as
            reached.
        stratum: Of each row, shape ``(n,)``; rows are permuted within their stratum.
        seed: The same seed gives the same permutations.
    """
    strata = np.unique(np.asarray(stratum), return_inverse=True)[1]
    by_stratum = np.argsort(strata, kind="stable")
    generator = np.random.default_rng(seed)
    observed = statistic(np.arange(len(strata)))
    reached = 0
    for drawn in range(1, MOST_PERMUTATIONS + 1):
        order = np.empty(len(strata), np.int64)
        order[by_stratum] = np.lexsort((generator.random(len(strata)), strata))
        reached += not statistic(order) < observed
        if reached == _ENOUGH_EXCEEDED:
            return reached / drawn
    return (reached + 1) / (MOST_PERMUTATIONS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979, A simple sequentially rejective multiple test procedure).

    Rejecting those of at most a keeps the probability of any false rejection at most a.
    """
    order = np.argsort(p_values)
    stepped = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return [float(one) for one in adjusted]
