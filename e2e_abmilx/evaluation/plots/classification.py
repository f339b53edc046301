"""Figures of classification: ROC, precision–recall, confusion matrix and reliability."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.evaluation.bootstrap import INTERVAL, bootstrap, resamples
from e2e_abmilx.evaluation.calibration import ReliabilityCurve
from e2e_abmilx.evaluation.columns import aligned, check_labels
from e2e_abmilx.evaluation.estimators import Auroc, Estimator, Weight, ratio
from e2e_abmilx.evaluation.plots.style import (
    GREY,
    SMALL_PT,
    draw_diagonal,
    finish_axes,
    label_with_interval,
    legend_label,
    new_axes,
    next_curve_style,
)

_BAND = np.linspace(0, 1, 201)  # false positive rates at which the band of an ROC curve is measured
_MOST_CLASSES_WITH_FRACTIONS = 8  # in a confusion matrix of more, a cell has room for one line of text
_MOST_TICK_CHARACTERS = 30  # longer class names along the x axis are written vertically


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
    """Draw an ROC curve and its 95 % band by the bootstrap over cases; the legend gives the area and its interval.

    Args:
        probability: Of the positive class, shape ``(n,)``.
        label: 1 for a positive row, 0 for a negative one, shape ``(n,)``.
        cases: Case of each row, shape ``(n,)``.
        name: Name of the curve, in the legend.
        n_resamples: Number of resamples.
        seed: Seed of the resamples.
        axes: Where to draw.

    Raises:
        InputError: If the columns differ in length or hold NaN, or a label is neither 0 nor 1.
    """
    axes = axes or new_axes()
    style, ranking = next_curve_style(axes), _Ranking(probability, label)
    area = bootstrap(Auroc(probability, label), cases, n_resamples=n_resamples, seed=seed)
    curves = (ranking.roc(weight) for weight in resamples(cases, n_resamples=n_resamples, seed=seed))
    legend = label_with_interval(name, "AUC", area)
    axes.plot(*next(curves), style.dashes, color=style.colour, linewidth=1.2, label=legend)
    heights = [np.interp(_BAND, *curve) for curve in curves if not np.isnan(curve).any()]
    if heights:
        low, high = np.quantile(heights, INTERVAL, axis=0)
        axes.fill_between(_BAND, low, high, color=style.colour, alpha=0.15, linewidth=0)
    draw_diagonal(axes)
    return finish_axes(axes, "1 − specificity", "sensitivity", fractions=True)


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

    The grey line is the fraction of positive rows, the precision of random predictions. Arguments and errors are those of
    :func:`plot_roc`.
    """
    axes = axes or new_axes()
    style, ranking = next_curve_style(axes), _AveragePrecision(probability, label)
    estimate = bootstrap(ranking, cases, n_resamples=n_resamples, seed=seed)
    recall, precision = ranking.precision_recall(np.ones(ranking.rows, np.int64))
    axes.step(
        [0, *recall], [precision[0], *precision], style.dashes, where="pre", color=style.colour, linewidth=1.2,
        label=label_with_interval(name, "AP", estimate),
    )  # fmt: skip
    axes.axhline(ranking.positive.mean(), color=GREY, linewidth=0.6, linestyle="--", zorder=0)
    return finish_axes(axes, "recall", "precision", fractions=True)


def plot_confusion_matrix(
    predicted: ArrayLike, label: ArrayLike, classes: Sequence[str], *, axes: Axes | None = None
) -> Axes:
    """Draw how often each class was predicted as each: the number and, as colour, its fraction of the true class.

    With up to 8 classes the fraction is written too.

    Args:
        predicted: Predicted class of each row, 0 … K-1, shape ``(n,)``.
        label: Class of each row, 0 … K-1, shape ``(n,)``.
        classes: Names of the K classes.
        axes: Where to draw.

    Raises:
        InputError: If the columns differ in length, or a label or prediction is not a class.
    """
    axes = axes or new_axes()
    size = len(classes)
    guesses, labels = (column.astype(np.int64) for column in aligned(predicted=predicted, label=label))
    check_labels(labels, size)
    check_labels(guesses, size)
    matrix = np.bincount(labels * size + guesses, minlength=size**2).reshape(size, size)
    fraction = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(size, size):
        ink = "white" if fraction[row, column] > 0.7 else "black"
        text = str(matrix[row, column])
        if size <= _MOST_CLASSES_WITH_FRACTIONS:
            text += f"\n{fraction[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=SMALL_PT)
    names, rotation = [_wrap(name, 14) for name in classes], 0
    if size * max(len(line) for name in names for line in name.splitlines()) > _MOST_TICK_CHARACTERS:
        names, rotation = [_wrap(name, 20) for name in classes], 90
    axes.set_xticks(range(size), names, rotation=rotation, parse_math=False)
    axes.set_yticks(range(size), names, parse_math=False)
    return finish_axes(axes, "predicted class", "true class")


def plot_reliability(curve: ReliabilityCurve, *, name: str = "", axes: Axes | None = None) -> Axes:
    """Draw observed frequency over predicted probability; markers grow with the bin's rows, the legend gives the ECE.

    Args:
        curve: From :func:`~e2e_abmilx.evaluation.calibration.reliability_curve`.
        name: Name of the curve, in the legend.
        axes: Where to draw.
    """
    axes = axes or new_axes()
    style = next_curve_style(axes)
    label = legend_label(f"{name} ECE {curve.expected_calibration_error:.3f}")
    axes.plot(curve.confidence, curve.frequency, style.dashes, color=style.colour, linewidth=1.2, label=label)
    areas = 4 + 120 * curve.rows / curve.rows.sum()
    axes.scatter(curve.confidence, curve.frequency, areas, color=style.colour, linewidth=0, clip_on=False)
    draw_diagonal(axes)
    return finish_axes(axes, "predicted probability", "observed frequency", fractions=True)


class _Ranking:
    """Rows in order of decreasing probability, and how many of them lie at or above each distinct probability."""

    def __init__(self, probability: ArrayLike, label: ArrayLike) -> None:
        scores, labels = aligned(probability=probability, label=label)
        check_labels(labels, 2)
        self.rows = len(labels)
        self.order = np.argsort(-scores, kind="stable")
        self.positive = labels[self.order] == 1
        self.ends = np.append(np.flatnonzero(np.diff(scores[self.order])), self.rows - 1)

    def counts(self, weight: Weight) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the numbers of positive and negative rows at or above each probability."""
        drawn = weight[self.order]
        return np.cumsum(drawn * self.positive)[self.ends], np.cumsum(drawn * ~self.positive)[self.ends]

    def roc(self, weight: Weight) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return false and true positive rates, starting at (0, 0); NaN where a class has no row."""
        positives, negatives = self.counts(weight)
        false_rate, true_rate = (np.append(0.0, n * ratio(1, n[-1])) for n in (negatives, positives))
        return false_rate, true_rate

    def precision_recall(self, weight: Weight) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return recall and precision at each probability; the recall is NaN where no row is positive."""
        positives, negatives = self.counts(weight)
        recall = positives.astype(np.float64) * ratio(1, positives[-1])
        precision: NDArray[np.float64] = positives / np.maximum(positives + negatives, 1)
        return recall, precision


class _AveragePrecision(_Ranking, Estimator):
    """The area under the steps of precision over recall."""

    def __call__(self, weight: Weight) -> float:
        recall, precision = self.precision_recall(weight)
        return float(np.diff(recall, prepend=0) @ precision)


def _wrap(name: str, characters: int) -> str:
    return textwrap.fill(name, characters, break_long_words=False)
