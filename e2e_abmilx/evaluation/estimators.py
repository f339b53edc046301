"""Measures of performance as functions of how often each row counts, so that a bootstrap never copies rows.

A resample with replacement is a vector of integers: how often each row was drawn. Work that does not depend on it, such
as sorting, is done once, when an estimator is created.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.evaluation.columns import aligned, check_labels
from e2e_abmilx.evaluation.thresholds import Threshold

Weight = NDArray[np.int64]


class Estimator(ABC):
    """A measure of n predictions.

    Attributes:
        rows: n.
    """

    rows: int

    @abstractmethod
    def __call__(self, weight: Weight) -> float:
        """Return the measure where each row counts as often as it was drawn.

        Args:
            weight: Integers from 0, shape ``(n,)``; all 1 for the predictions themselves.

        Returns:
            The measure; NaN where it is undefined.
        """


class Resampled(Estimator):
    """Any function of columns, called with the drawn rows: slower than the estimators below.

    Args:
        measure: Called with the columns, rows repeated as often as drawn; returns a number.
        columns: Each of shape ``(n, …)``.
    """

    def __init__(self, measure: Callable[..., float], *columns: ArrayLike) -> None:
        self.measure = measure
        self.columns = aligned(**{f"column {place}": column for place, column in enumerate(columns)})
        self.rows = len(self.columns[0])

    def __call__(self, weight: Weight) -> float:
        """Return the measure of the drawn rows."""
        return float(self.measure(*(np.repeat(column, weight, axis=0) for column in self.columns)))


class RatioOfSums(Estimator):
    """The sum of one column divided by the sum of another.

    Args:
        part: Numerator of each row, shape ``(n,)``.
        whole: Denominator of each row, shape ``(n,)``.
    """

    def __init__(self, part: ArrayLike, whole: ArrayLike) -> None:
        self.part, self.whole = aligned(part=part, whole=whole)
        self.rows = len(self.part)

    def __call__(self, weight: Weight) -> float:
        """Return the ratio."""
        return ratio(float(weight @ self.part), float(weight @ self.whole))


class RowMean(RatioOfSums):
    """The mean of a value over rows.

    Args:
        value: A number per row, shape ``(n,)``.
        among: Whether a row counts at all, shape ``(n,)``.
    """

    def __init__(self, value: ArrayLike, among: ArrayLike) -> None:
        values, counted = aligned(value=value, among=among)
        super().__init__(np.where(counted, values, 0.0), counted.astype(bool))


class OnSubset(Estimator):
    """A measure restricted to some of the rows.

    Args:
        estimator: A measure of the n rows.
        counted: Whether a row counts, shape ``(n,)``.
    """

    def __init__(self, estimator: Estimator, counted: NDArray[np.bool_]) -> None:
        self.estimator, self.counted, self.rows = estimator, counted, estimator.rows

    def __call__(self, weight: Weight) -> float:
        """Return the measure of those rows."""
        return self.estimator(weight * self.counted)


class MeanOfMeasures(Estimator):
    """The mean of several measures of the same rows; undefined if any of them is, or if there are none.

    Args:
        estimators: The measures.
        rows: n.
    """

    def __init__(self, estimators: Sequence[Estimator], rows: int) -> None:
        self.estimators, self.rows = estimators, rows

    def __call__(self, weight: Weight) -> float:
        """Return the mean."""
        return float(np.mean([each(weight) for each in self.estimators])) if self.estimators else np.nan


class MeanOverRuns(Estimator):
    """The mean of one measure over runs, such as folds or seeds, that each predict some of the rows.

    Runs in which the measure is undefined do not count.

    Args:
        parts: For each run, the measure and the rows it predicts, in its own order; runs may share rows.
        rows: n.
    """

    def __init__(self, parts: Sequence[tuple[Estimator, NDArray[np.intp]]], rows: int) -> None:
        self.parts, self.rows = parts, rows

    def __call__(self, weight: Weight) -> float:
        """Return the mean over the runs; a row counts equally often in each of them."""
        values = np.array([estimator(weight[own]) for estimator, own in self.parts])
        defined = values[~np.isnan(values)]
        return float(defined.mean()) if len(defined) else np.nan


class Accuracy(RowMean):
    """Fraction of correct predictions (micro accuracy).

    Args:
        predicted: Predicted class of each row, shape ``(n,)``.
        label: Class of each row, shape ``(n,)``.
    """

    def __init__(self, predicted: ArrayLike, label: ArrayLike) -> None:
        guesses, labels = aligned(predicted=predicted, label=label)
        super().__init__(guesses == labels, among=np.ones(len(labels)))


class Sensitivity(RowMean):
    """Fraction of the positive rows that reach a threshold.

    Args:
        probability: Of the positive class, shape ``(n,)``.
        label: 1 for a positive row, 0 for a negative one, shape ``(n,)``.
        threshold: Fitted on training or validation cases.
    """

    def __init__(self, probability: ArrayLike, label: ArrayLike, threshold: Threshold) -> None:
        scores, labels = aligned(probability=probability, label=label)
        check_labels(labels, 2)
        super().__init__(threshold.reached(scores), among=labels == 1)


class Specificity(RowMean):
    """Fraction of the negative rows that stay below a threshold; the arguments are those of :class:`Sensitivity`."""

    def __init__(self, probability: ArrayLike, label: ArrayLike, threshold: Threshold) -> None:
        scores, labels = aligned(probability=probability, label=label)
        check_labels(labels, 2)
        super().__init__(~threshold.reached(scores), among=labels == 0)


class Auroc(Estimator):
    """Area under the ROC curve: the fraction of pairs in which the positive row has the higher probability.

    For several classes, the mean of the areas of each class against the rest, over the classes that have both positive
    and negative rows. The other classes have no area, and counting them as 0, as torchmetrics does, would say nothing
    about the model. A resample that lacks the rows of a counted class is undefined.

    Args:
        probability: Of the positive class, shape ``(n,)``, or of each class, shape ``(n, K)``; or any increasing
            function of it.
        label: Class of each row, 0 … K-1, shape ``(n,)``.
    """

    def __init__(self, probability: ArrayLike, label: ArrayLike) -> None:
        scores, labels = aligned(probability=probability, label=label)
        self.rows = len(labels)
        check_labels(labels, 2 if scores.ndim == 1 else scores.shape[1])
        columns = {1: scores} if scores.ndim == 1 else dict(enumerate(scores.T))
        self.classes = [
            (np.unique(column, return_inverse=True)[1], labels == number)
            for number, column in columns.items()
            if 0 < (labels == number).sum() < len(labels)
        ]

    def __call__(self, weight: Weight) -> float:
        """Return the area."""
        areas = [self._area(rank, positive, weight) for rank, positive in self.classes]
        return float(np.mean(areas)) if areas else np.nan

    def _area(self, rank: NDArray[np.intp], positive: NDArray[np.bool_], weight: Weight) -> float:
        positives = np.bincount(rank, weight * positive)
        negatives = np.bincount(rank, weight * ~positive)
        below = np.cumsum(negatives) - negatives
        return ratio(float(positives @ (below + negatives / 2)), positives.sum() * negatives.sum())


class ConfusionEstimator(Estimator):
    """A measure of the confusion matrix, computed by ``_of_matrix``.

    Args:
        predicted: Predicted class of each row, 0 … K-1, shape ``(n,)``.
        label: Class of each row, 0 … K-1, shape ``(n,)``.
    """

    def __init__(self, predicted: ArrayLike, label: ArrayLike) -> None:
        guesses, labels = (column.astype(np.int64) for column in aligned(predicted=predicted, label=label))
        self.rows, self.num_classes = len(labels), int(max(guesses.max(), labels.max())) + 1
        check_labels(guesses, self.num_classes)
        check_labels(labels, self.num_classes)
        self.cell = labels * self.num_classes + guesses

    def __call__(self, weight: Weight) -> float:
        """Return the measure of the rows' confusion matrix."""
        counts = np.bincount(self.cell, weight, minlength=self.num_classes**2).astype(np.float64)
        return self._of_matrix(counts.reshape(self.num_classes, self.num_classes))

    @abstractmethod
    def _of_matrix(self, matrix: NDArray[np.float64]) -> float:
        """Return the measure of a matrix of labels × predictions, shape ``(K, K)``."""


class BalancedAccuracy(ConfusionEstimator):
    """Mean recall over the classes that occur as a label (macro accuracy)."""

    def _of_matrix(self, matrix: NDArray[np.float64]) -> float:
        correct, labelled = np.diag(matrix), matrix.sum(axis=1)
        occurs = labelled > 0
        return float(np.mean(correct[occurs] / labelled[occurs]))


class MacroF1(ConfusionEstimator):
    """Mean F1 score over the classes that occur as a label or prediction, as in torchmetrics."""

    def _of_matrix(self, matrix: NDArray[np.float64]) -> float:
        correct, involved = np.diag(matrix), matrix.sum(axis=1) + matrix.sum(axis=0)
        occurs = involved > 0
        return float(np.mean(2 * correct[occurs] / involved[occurs]))


class CohenKappa(ConfusionEstimator):
    """Cohen's κ: agreement beyond chance, with all errors equally bad."""

    def _of_matrix(self, matrix: NDArray[np.float64]) -> float:
        return _kappa(matrix, 1 - np.eye(self.num_classes))


class QuadraticWeightedKappa(ConfusionEstimator):
    """Quadratic weighted κ (QWK): Cohen's κ for ordered classes, where an error costs its squared distance."""

    def _of_matrix(self, matrix: NDArray[np.float64]) -> float:
        grade = np.arange(self.num_classes)
        return _kappa(matrix, (grade[:, None] - grade) ** 2)


def ratio(part: float, whole: float) -> float:
    """Return ``part / whole``; NaN if ``whole`` is 0."""
    return float(part / whole) if whole else np.nan


def _kappa(matrix: NDArray[np.float64], cost: NDArray[Any]) -> float:
    chance = np.outer(matrix.sum(axis=1), matrix.sum(axis=0)) / matrix.sum()
    return 1 - ratio((cost * matrix).sum(), (cost * chance).sum())
