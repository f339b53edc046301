"""Figures of classification: ROC, precision-recall, confusion matrix, reliability."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.evaluation.bootstrap import INTERVAL, bootstrap, resamples
from e2e_abmilx.evaluation.calibration import ReliabilityCurve
from e2e_abmilx.evaluation.columns import aligned, check_labels
from e2e_abmilx.evaluation.estimators import Auroc, Estimator, Weight, ratio
from e2e_abmilx.evaluation.plots.style import (
    FALSE_POSITIVE_RATES,
    GREY,
    ROOMY_CLASSES,
    SMALL_PT,
    TICK_CHARACTERS,
    finish,
    label_axes,
    named,
    new_axes,
    next_pen,
    wrap,
)


def plot_roc(
    probability: ArrayLike,
    label: ArrayLike,
    cases: Sequence[str],
    *,
    name: str = "",
    n_resamples: int = 1000,
    seed: int = 0,
    axes: Axes | None = None,
) -> Axes:
    """Draw an ROC curve and its 95 % band, a bootstrap over cases; the legend gives the area and interval.

    Args:
        probability: Of the positive class, shape ``(n,)``.
        label: 1 for a positive row, 0 for a negative one, shape ``(n,)``.
        cases: Case of each row, shape ``(n,)``.
        name: Of the curve, in the legend.
        n_resamples: Number of resamples.
        seed: Of the resamples.
        axes: Where to draw.

    Raises:
        InputError: If the columns differ in length, hold NaN, or a label is neither 0 nor 1.
    """
    axes = axes or new_axes()
    pen, ranking = next_pen(axes), _Ranking(probability, label)
    area = bootstrap(Auroc(probability, label), cases, n_resamples=n_resamples, seed=seed)
    curves = (ranking.roc(weight) for weight in resamples(cases, n_resamples=n_resamples, seed=seed))
    false_share, true_share = next(curves)
    axes.plot(
        false_share, true_share, pen.dashes, color=pen.colour, linewidth=1.2, label=named(name, "AUC", area)
    )
    heights = [np.interp(FALSE_POSITIVE_RATES, *curve) for curve in curves if not np.isnan(curve).any()]
    if heights:
        low, high = np.quantile(heights, INTERVAL, axis=0)
        axes.fill_between(FALSE_POSITIVE_RATES, low, high, color=pen.colour, alpha=0.15, linewidth=0)
    _draw_diagonal(axes)
    return finish(axes, "1 − specificity", "sensitivity", shares=True)


def plot_precision_recall(
    probability: ArrayLike,
    label: ArrayLike,
    cases: Sequence[str],
    *,
    name: str = "",
    n_resamples: int = 1000,
    seed: int = 0,
    axes: Axes | None = None,
) -> Axes:
    """Draw precision over recall; the legend gives the average precision and its 95 % interval over cases.

    The grey line is the share of positive rows, which a coin's precision is.

    Args:
        probability: Of the positive class, shape ``(n,)``.
        label: 1 for a positive row, 0 for a negative one, shape ``(n,)``.
        cases: Case of each row, shape ``(n,)``.
        name: Of the curve, in the legend.
        n_resamples: Number of resamples.
        seed: Of the resamples.
        axes: Where to draw.

    Raises:
        InputError: If the columns differ in length, hold NaN, or a label is neither 0 nor 1.
    """
    axes = axes or new_axes()
    pen, ranking = next_pen(axes), _Ranking(probability, label)
    estimate = bootstrap(_AveragePrecision(ranking), cases, n_resamples=n_resamples, seed=seed)
    recall, precision = ranking.precision_recall(np.ones(ranking.rows, np.int64))
    axes.step(
        [0, *recall], [precision[0], *precision], pen.dashes, where="pre", color=pen.colour, linewidth=1.2,
        label=named(name, "AP", estimate),
    )  # fmt: skip
    axes.axhline(ranking.positive.mean(), color=GREY, linewidth=0.6, linestyle="--", zorder=0)
    return finish(axes, "recall", "precision", shares=True)


def plot_confusion_matrix(
    predicted: ArrayLike, label: ArrayLike, classes: Sequence[str], *, axes: Axes | None = None
) -> Axes:
    """Draw how often each class was taken for each: the number, and as colour its share of the class.

    Of up to 8 classes the share is written too.

    Args:
        predicted: Class that the model says, 0 … K-1, shape ``(n,)``.
        label: Class of each row, 0 … K-1, shape ``(n,)``.
        classes: Names of the K classes.
        axes: Where to draw.

    Raises:
        InputError: If the columns differ in length, or a label or prediction is no class.
    """
    axes = axes or new_axes()
    size = len(classes)
    guesses, labels = (column.astype(np.int64) for column in aligned(predicted=predicted, label=label))
    check_labels(labels, size)
    check_labels(guesses, size)
    matrix = np.bincount(labels * size + guesses, minlength=size**2).reshape(size, size)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(size, size):
        ink = "white" if share[row, column] > 0.7 else "black"
        text = f"{matrix[row, column]}" + f"\n{share[row, column]:.0%}" * (size <= ROOMY_CLASSES)
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=SMALL_PT)
    names, turn = [wrap(name, 14) for name in classes], 0
    if size * max(len(line) for name in names for line in name.splitlines()) > TICK_CHARACTERS:
        names, turn = [wrap(name, 20) for name in classes], 90
    axes.set_xticks(range(size), names, rotation=turn, parse_math=False)
    axes.set_yticks(range(size), names, parse_math=False)
    return finish(axes, "predicted class", "true class")


def plot_reliability(curve: ReliabilityCurve, *, name: str = "", axes: Axes | None = None) -> Axes:
    """Draw what came true over what was said; markers grow with the rows of a bin, the legend gives the ECE.

    Args:
        curve: From :func:`~e2e_abmilx.evaluation.calibration.reliability_curve`.
        name: Of the curve, in the legend.
        axes: Where to draw.
    """
    axes = axes or new_axes()
    pen = next_pen(axes)
    label = label_axes(f"{name} ECE {curve.expected_calibration_error:.3f}")
    axes.plot(curve.confidence, curve.frequency, pen.dashes, color=pen.colour, linewidth=1.2, label=label)
    areas = 4 + 120 * curve.rows / curve.rows.sum()
    axes.scatter(curve.confidence, curve.frequency, areas, color=pen.colour, linewidth=0, clip_on=False)
    _draw_diagonal(axes)
    return finish(axes, "predicted probability", "observed frequency", shares=True)


class _Ranking:
    """Rows from the highest probability down, and how many of them are counted by each distinct one."""

    def __init__(self, probability: ArrayLike, label: ArrayLike) -> None:
        scores, labels = aligned(probability=probability, label=label)
        check_labels(labels, 2)
        self.rows = len(labels)
        self.order = np.argsort(-scores, kind="stable")
        self.positive = labels[self.order] == 1
        self.ends = np.append(np.flatnonzero(np.diff(scores[self.order])), self.rows - 1)

    def counted(self, weight: Weight) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positive and negative rows at or above each probability."""
        drawn = weight[self.order]
        return np.cumsum(drawn * self.positive)[self.ends], np.cumsum(drawn * ~self.positive)[self.ends]

    def roc(self, weight: Weight) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Share of the negative and of the positive rows, from (0, 0) on; NaN where a class has no row."""
        positives, negatives = self.counted(weight)
        false_share, true_share = (np.append(0.0, n * ratio(1, n[-1])) for n in (negatives, positives))
        return false_share, true_share

    def precision_recall(self, weight: Weight) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Recall and precision at each probability; the recall is NaN where no row is positive."""
        positives, negatives = self.counted(weight)
        recall = positives.astype(np.float64) * ratio(1, positives[-1])
        precision: NDArray[np.float64] = positives / np.maximum(positives + negatives, 1)
        return recall, precision


class _AveragePrecision(Estimator):
    """The area under the steps of precision over recall."""

    def __init__(self, ranking: _Ranking) -> None:
        self.ranking, self.rows = ranking, ranking.rows

    def __call__(self, weight: Weight) -> float:
        recall, precision = self.ranking.precision_recall(weight)
        return float(np.diff(recall, prepend=0) @ precision)


def _draw_diagonal(axes: Axes) -> None:
    axes.axline((0, 0), (1, 1), color=GREY, linewidth=0.6, linestyle="--", zorder=0)
