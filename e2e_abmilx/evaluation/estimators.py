"""Measures of performance as functions of how often each row counts, so that a bootstrap never copies rows.

A resample with replacement is a vector of whole numbers: how often each row was drawn. Everything that does not depend
on it, such as sorting, is done once, when an estimator is made.
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
            weight: Whole numbers from 0, shape ``(n,)``; all 1 for the predictions themselves.

        Returns:
            The measure; NaN where it is not defined.
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


class Share(Estimator):
    """What counts of all rows, over what there is of it.

    Args:
        part: What counts of each row, shape ``(n,)``.
        whole: What there is of it, shape ``(n,)``.
    """

    def __init__(self, part: ArrayLike, whole: ArrayLike) -> None:
        self.part, self.whole = aligned(part=part, whole=whole)
        self.rows = len(self.part)

    def __call__(self, weight: Weight) -> float:
        """Return the share."""
        return ratio(float(weight @ self.part), float(weight @ self.whole))


class Among(Estimator):
    """A measure of some of the rows.

    Args:
        estimator: A measure of the n rows.
        counted: Which of them count, shape ``(n,)``.
    """

    def __init__(self, estimator: Estimator, counted: NDArray[np.bool_]) -> None:
        self.estimator, self.counted, self.rows = estimator, counted, estimator.rows

    def __call__(self, weight: Weight) -> float:
        """Return the measure of those rows."""
        return self.estimator(weight * self.counted)


class MeanOf(Estimator):
    """The mean of measures of the same rows; not defined where one of them is not, or where there are none.

    Args:
        estimators: The measures.
        rows: n.
    """

    def __init__(self, estimators: Sequence[Estimator], rows: int) -> None:
        self.estimators, self.rows = estimators, rows

    def __call__(self, weight: Weight) -> float:
        """Return the mean."""
        return float(np.mean([each(weight) for each in self.estimators])) if self.estimators else np.nan


class MeanOver(Estimator):
    """The mean of a measure over parts of the rows, such as folds or the runs of several seeds, where it is defined.

    Args:
        parts: The measure of each part, and which of the n rows it has, in its own order; parts may share rows.
        rows: n.
    """

    def __init__(self, parts: Sequence[tuple[Estimator, NDArray[np.intp]]], rows: int) -> None:
        self.parts, self.rows = parts, rows

    def __call__(self, weight: Weight) -> float:
        """Return the mean over the parts; a row counts as often in each of them."""
        values = np.array([estimator(weight[own]) for estimator, own in self.parts])
        defined = values[~np.isnan(values)]
        return float(defined.mean()) if len(defined) else np.nan


class Mean(Share):
    """The mean of a value of each row.

    Args:
        value: A number for each row, shape ``(n,)``.
        among: Whether a row counts at all, shape ``(n,)``.
    """

    def __init__(self, value: ArrayLike, among: ArrayLike) -> None:
        values, counted = aligned(value=value, among=among)
        super().__init__(np.where(counted, values, 0.0), counted.astype(bool))


class Accuracy(Mean):
    """Share of right predictions (micro accuracy).

    Args:
        predicted: Class that the model says, shape ``(n,)``.
        label: Class of each row, shape ``(n,)``.
    """

    def __init__(self, predicted: ArrayLike, label: ArrayLike) -> None:
        guesses, labels = aligned(predicted=predicted, label=label)
        super().__init__(guesses == labels, among=np.ones(len(labels)))


class Sensitivity(Mean):
    """Share of the positive rows that reach a threshold.

    Args:
        probability: Of the positive class, shape ``(n,)``.
        label: 1 for a positive row, 0 for a negative one, shape ``(n,)``.
        threshold: Fitted on training or validation cases.
    """

    def __init__(self, probability: ArrayLike, label: ArrayLike, threshold: Threshold) -> None:
        scores, labels = aligned(probability=probability, label=label)
        check_labels(labels, 2)
        super().__init__(threshold.reached(scores), among=labels == 1)


class Specificity(Mean):
    """Share of the negative rows that stay below a threshold.

    Args:
        probability: Of the positive class, shape ``(n,)``.
        label: 1 for a positive row, 0 for a negative one, shape ``(n,)``.
        threshold: Fitted on training or validation cases.
    """

    def __init__(self, probability: ArrayLike, label: ArrayLike, threshold: Threshold) -> None:
        scores, labels = aligned(probability=probability, label=label)
        check_labels(labels, 2)
        super().__init__(~threshold.reached(scores), among=labels == 0)


class Auroc(Estimator):
    """Area under the ROC curve: the share of pairs in which the positive row has the higher probability.

    Over several classes the mean of each one against the rest, over those classes that some rows are of and others are
    not: the rest have no such area, and to count it as 0, as torchmetrics does, says nothing about the model. A
    resample without rows of a class that counts is not defined.

    Args:
        probability: Of the positive class, shape ``(n,)``, or of each class, shape ``(n, K)``; any rising function of
            it does.
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
    """A measure that the confusion matrix is enough for; its measure is :meth:`of_matrix`.

    Args:
        predicted: Class that the model says, 0 … K-1, shape ``(n,)``.
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
        return self.of_matrix(counts.reshape(self.num_classes, self.num_classes))

    @abstractmethod
    def of_matrix(self, matrix: NDArray[np.float64]) -> float:
        """Return the measure of a matrix of labels × predictions, shape ``(K, K)``."""


class BalancedAccuracy(ConfusionEstimator):
    """Mean of the classes' recalls, over the classes that occur as a label (balanced, or macro, accuracy)."""

    def of_matrix(self, matrix: NDArray[np.float64]) -> float:
        """Return the mean recall."""
        right, labelled = np.diag(matrix), matrix.sum(axis=1)
        occurs = labelled > 0
        return float(np.mean(right[occurs] / labelled[occurs]))


class MacroF1(ConfusionEstimator):
    """Mean of the classes' F1 scores, over the classes that occur as label or prediction, as torchmetrics has it."""

    def of_matrix(self, matrix: NDArray[np.float64]) -> float:
        """Return the mean F1 score."""
        right, involved = np.diag(matrix), matrix.sum(axis=1) + matrix.sum(axis=0)
        occurs = involved > 0
        return float(np.mean(2 * right[occurs] / involved[occurs]))


class CohenKappa(ConfusionEstimator):
    """Cohen's κ: agreement beyond chance, every wrong class equally wrong."""

    def of_matrix(self, matrix: NDArray[np.float64]) -> float:
        """Return κ."""
        return _kappa(matrix, 1 - np.eye(self.num_classes))


class QuadraticKappa(ConfusionEstimator):
    """Cohen's κ for ordered classes: a wrong class weighs the square of its distance, as in grading."""

    def of_matrix(self, matrix: NDArray[np.float64]) -> float:
        """Return the quadratically weighted κ."""
        grade = np.arange(self.num_classes)
        return _kappa(matrix, (grade[:, None] - grade) ** 2)


def ratio(part: float, whole: float) -> float:
    """Return a share, NaN of nothing."""
    return float(part / whole) if whole else np.nan


def _kappa(matrix: NDArray[np.float64], cost: NDArray[Any]) -> float:
    chance = np.outer(matrix.sum(axis=1), matrix.sum(axis=0)) / matrix.sum()
    expected = (cost * chance).sum()
    return 1 - ratio((cost * matrix).sum(), expected)
