"""Measures of predicted against true values, in a form that can be bootstrapped quickly."""

from abc import abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.evaluation.columns import aligned
from e2e_abmilx.evaluation.estimators import Estimator, RowMean, Weight

_Column = NDArray[np.float64]


class ValueEstimator(Estimator):
    """A measure of predicted values against true ones; undefined without two different true values.

    Args:
        predicted: Predicted value of each row, shape ``(n,)``.
        value: True value of each row, shape ``(n,)``.
    """

    #: Whether the measure is defined where all predictions are the same.
    constant_predictions: bool = False

    def __init__(self, predicted: ArrayLike, value: ArrayLike) -> None:
        self.predicted, self.value = (column.astype(np.float64) for column in aligned(predicted=predicted, value=value))
        self.rows = len(self.value)

    def __call__(self, weight: Weight) -> float:
        """Return the measure."""
        drawn = weight > 0
        for column in (self.value,) if self.constant_predictions else (self.value, self.predicted):
            if not drawn.any() or np.ptp(column[drawn]) == 0:
                return np.nan
        return self._of_drawn(weight)

    @abstractmethod
    def _of_drawn(self, weight: Weight) -> float:
        """Return the measure of rows that are drawn as often as ``weight`` says, shape ``(n,)``, and differ."""


class Pearson(ValueEstimator):
    """Pearson's correlation r."""

    def _of_drawn(self, weight: Weight) -> float:
        return _correlate(self.predicted, self.value, weight)


class Spearman(ValueEstimator):
    """Spearman's rank correlation ρ; equal values share the mean of their ranks.

    The distinct values are sorted once. A row that is drawn several times counts as so many equal values, whose mean rank
    follows from a cumulative sum over the distinct values.
    """

    def __init__(self, predicted: ArrayLike, value: ArrayLike) -> None:
        super().__init__(predicted, value)
        self.predicted_place = np.unique(self.predicted, return_inverse=True)[1]
        self.value_place = np.unique(self.value, return_inverse=True)[1]

    def _of_drawn(self, weight: Weight) -> float:
        return _correlate(_mean_ranks(self.predicted_place, weight), _mean_ranks(self.value_place, weight), weight)


class RSquared(ValueEstimator):
    r"""Coefficient of determination: :math:`R^2 = 1 - \sum (y - \hat y)^2 / \sum (y - \bar y)^2`.

    It is 1 for a perfect prediction, 0 for the mean of the rows, and negative for a worse one.
    """

    constant_predictions = True

    def _of_drawn(self, weight: Weight) -> float:
        spread = self.value - weight @ self.value / weight.sum()
        return float(1 - weight @ (self.value - self.predicted) ** 2 / (weight @ spread**2))


class MeanAbsoluteError(RowMean):
    """Mean absolute error; the arguments are those of :class:`ValueEstimator`."""

    def __init__(self, predicted: ArrayLike, value: ArrayLike) -> None:
        predictions, values = aligned(predicted=predicted, value=value)
        super().__init__(np.abs(predictions - values), among=np.ones(len(values)))


def _correlate(one: _Column, other: _Column, weight: Weight) -> float:
    """Return Pearson's correlation of columns that are not constant, shape ``(n,)`` each."""
    first, second = (column - weight @ column / weight.sum() for column in (one, other))
    return float(weight @ (first * second) / np.sqrt((weight @ first**2) * (weight @ second**2)))


def _mean_ranks(place: NDArray[np.intp], weight: Weight) -> _Column:
    """Return the mean rank of each row, given the place of its value among the distinct values, shape ``(n,)``."""
    counts = np.bincount(place, weight)
    ranks: _Column = np.cumsum(counts) - (counts - 1) / 2
    return ranks[place]
