"""Figures for papers: one function a figure, each takes results and an Axes and returns the Axes.

Without an Axes a figure as wide as a journal's column is made, by pyplot, so that a notebook shows it.
Functions that draw a curve may be called again on the same Axes, to compare. Nothing global is changed.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import INTERVAL, Estimate, bootstrap, resamples
from e2e_abmilx.evaluation.calibration import ReliabilityCurve
from e2e_abmilx.evaluation.columns import aligned, check_labels
from e2e_abmilx.evaluation.estimators import Auroc, Estimator, Weight, ratio
from e2e_abmilx.evaluation.risk_groups import RiskGroups, SurvivalCurve

#: Okabe and Ito's colours, which colour-blind people can tell apart; yellow, too pale for lines, is left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: Curves differ by these too, for prints without colour.
DASHES = ("-", "--", "-.", ":")

_COLUMN_MM, _HEIGHT_MM, _DPI = 85.0, 70.0, 200
_LABEL_PT, _SMALL_PT = 8.0, 7.0
_GREY = "#767676"
_ROOMY, _TICK_CHARACTERS = 8, 30  # classes with two lines of text in a cell; characters along an axis
_SHARES = np.linspace(0, 1, 201)  # where the band of an ROC curve is measured


def new_axes(*, height_mm: float = _HEIGHT_MM) -> Axes:
    """Make a figure of one Axes, as wide as a journal's column, 85 mm."""
    size = (_COLUMN_MM / 25.4, height_mm / 25.4)
    return plt.figure(figsize=size, dpi=_DPI, layout="constrained").add_subplot()


def plot_roc(
    probability: ArrayLike,
    label: ArrayLike,
    cases: Sequence[str],
    *,
    name: str = "",
    draws: int = 1000,
    seed: int = 0,
    axes: Axes | None = None,
) -> Axes:
    """Draw an ROC curve and its 95 % band, a bootstrap over cases; the legend gives the area and interval.

    Args:
        probability: Of the positive class, shape ``(n,)``.
        label: 1 for a positive row, 0 for a negative one, shape ``(n,)``.
        cases: Case of each row, shape ``(n,)``.
        name: Of the curve, in the legend.
        draws: Number of resamples.
        seed: Of the resamples.
        axes: Where to draw.

    Raises:
        InputError: If the columns differ in length, hold NaN, or a label is neither 0 nor 1.
    """
    axes = axes or new_axes()
    pen, ranking = _next_pen(axes), _Ranking(probability, label)
    area = bootstrap(Auroc(probability, label), cases, draws=draws, seed=seed)
    curves = (ranking.roc(weight) for weight in resamples(cases, draws=draws, seed=seed))
    false_share, true_share = next(curves)
    axes.plot(
        false_share, true_share, pen.dashes, color=pen.colour, linewidth=1.2, label=_named(name, "AUC", area)
    )
    heights = [np.interp(_SHARES, *curve) for curve in curves if not np.isnan(curve).any()]
    if heights:
        low, high = np.quantile(heights, INTERVAL, axis=0)
        axes.fill_between(_SHARES, low, high, color=pen.colour, alpha=0.15, linewidth=0)
    _draw_diagonal(axes)
    return _finish(axes, "1 − specificity", "sensitivity", shares=True)


def plot_precision_recall(
    probability: ArrayLike,
    label: ArrayLike,
    cases: Sequence[str],
    *,
    name: str = "",
    draws: int = 1000,
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
        draws: Number of resamples.
        seed: Of the resamples.
        axes: Where to draw.

    Raises:
        InputError: If the columns differ in length, hold NaN, or a label is neither 0 nor 1.
    """
    axes = axes or new_axes()
    pen, ranking = _next_pen(axes), _Ranking(probability, label)
    estimate = bootstrap(_AveragePrecision(ranking), cases, draws=draws, seed=seed)
    recall, precision = ranking.precision_recall(np.ones(ranking.rows, np.int64))
    axes.step(
        [0, *recall], [precision[0], *precision], pen.dashes, where="pre", color=pen.colour, linewidth=1.2,
        label=_named(name, "AP", estimate),
    )  # fmt: skip
    axes.axhline(ranking.positive.mean(), color=_GREY, linewidth=0.6, linestyle="--", zorder=0)
    return _finish(axes, "recall", "precision", shares=True)


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
        text = f"{matrix[row, column]}" + f"\n{share[row, column]:.0%}" * (size <= _ROOMY)
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=_SMALL_PT)
    names, turn = [_wrap(name, 14) for name in classes], 0
    if size * max(len(line) for name in names for line in name.splitlines()) > _TICK_CHARACTERS:
        names, turn = [_wrap(name, 20) for name in classes], 90
    axes.set_xticks(range(size), names, rotation=turn, parse_math=False)
    axes.set_yticks(range(size), names, parse_math=False)
    return _finish(axes, "predicted class", "true class")


def plot_reliability(curve: ReliabilityCurve, *, name: str = "", axes: Axes | None = None) -> Axes:
    """Draw what came true over what was said; markers grow with the rows of a bin, the legend gives the ECE.

    Args:
        curve: From :func:`~e2e_abmilx.evaluation.calibration.reliability_curve`.
        name: Of the curve, in the legend.
        axes: Where to draw.
    """
    axes = axes or new_axes()
    pen = _next_pen(axes)
    label = _label(f"{name} ECE {curve.expected_calibration_error:.3f}")
    axes.plot(curve.confidence, curve.frequency, pen.dashes, color=pen.colour, linewidth=1.2, label=label)
    areas = 4 + 120 * curve.rows / curve.rows.sum()
    axes.scatter(curve.confidence, curve.frequency, areas, color=pen.colour, linewidth=0, clip_on=False)
    _draw_diagonal(axes)
    return _finish(axes, "predicted probability", "observed frequency", shares=True)


def plot_kaplan_meier(groups: RiskGroups, *, axes: Axes | None = None) -> Axes:
    """Draw survival at low and high risk with 95 % bands, the log-rank p, and below it the numbers at risk.

    Args:
        groups: From :func:`~e2e_abmilx.evaluation.risk_groups.compare_risk_groups`.
        axes: Where to draw.
    """
    axes = axes or new_axes(height_mm=80)
    curves = {"low risk": groups.low, "high risk": groups.high}
    for name, curve in curves.items():
        pen = _next_pen(axes)
        axes.step(
            curve.time, curve.survival, pen.dashes, where="post", color=pen.colour, linewidth=1.2, label=name
        )
        axes.fill_between(
            curve.time, curve.low, curve.high, step="post", color=pen.colour, alpha=0.15, linewidth=0
        )
    axes.set_xlim(0, 1.02 * max((curve.time[-1] for curve in curves.values() if len(curve.time)), default=1))
    axes.set_ylim(0, 1.02)
    axes.annotate(  # beside the legend, where no curve can be in its way
        f"log-rank {_p_value(groups.p_value)}", (1, 1), (0, 5), "axes fraction", "offset points",
        ha="right", fontsize=_SMALL_PT,
    )  # fmt: skip
    _write_numbers_at_risk(axes, curves)
    return _finish(axes, "time (months)", "survival")


def plot_learning_curves(
    metrics: pd.DataFrame, columns: Mapping[str, str], *, measure: str, axes: Axes | None = None
) -> Axes:
    """Draw metrics over epochs.

    Args:
        metrics: A run's ``metrics.csv``.
        columns: Column of each curve by its name, such as ``{"training": "train/loss_epoch"}``.
        measure: What it is, such as ``loss``.
        axes: Where to draw.

    Raises:
        InputError: If there is no such column.
    """
    if missing := [column for column in ("epoch", *columns.values()) if column not in metrics]:
        there = ", ".join(map(str, metrics.columns))
        raise InputError(f"the metrics have no {', '.join(missing)}, only {there}; name some of these")
    axes = axes or new_axes()
    for name, column in columns.items():
        pen, curve = _next_pen(axes), metrics[["epoch", column]].dropna().groupby("epoch")[column].last()
        axes.plot(
            curve.index, curve, pen.dashes, color=pen.colour, linewidth=1.2, marker="o", markersize=2.5,
            label=_label(name),
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _finish(axes, "epoch", measure)


def plot_attention_sparsity(metrics: pd.DataFrame, *, axes: Axes | None = None) -> Axes:
    """Draw over epochs which share of the patches holds 95 % of the attention, in training and in validation.

    Args:
        metrics: A run's ``metrics.csv``.
        axes: Where to draw.

    Raises:
        InputError: If the run did not log it.
    """
    columns = {"training": "train/share_holding_95", "validation": "val/share_holding_95"}
    measure = "share of patches that hold\n95 % of the attention"
    axes = plot_learning_curves(metrics, columns, measure=measure, axes=axes)
    axes.set_ylim(0, 1)
    return axes


def plot_folds(
    estimates: Sequence[Estimate], measure: str, *, name: str = "", axes: Axes | None = None
) -> Axes:
    """Draw a measure of each fold with its 95 % interval; line and legend give the mean over folds ± SD.

    A point may lie outside of its interval, as that of a measure that resampling biases.

    Args:
        estimates: Of each fold.
        measure: What it is, such as ``AUC``.
        name: Of the model, in the legend.
        axes: Where to draw.
    """
    axes = axes or new_axes()
    pen, models = _next_pen(axes), len(axes.containers)
    points, low, high = np.array([(each.point, each.low, each.high) for each in estimates]).T
    folds = np.arange(1, len(points) + 1)
    places = folds + 0.15 * models
    axes.errorbar(
        places, (low + high) / 2, (high - low) / 2, fmt="none", ecolor=pen.colour, elinewidth=1, capsize=2
    )
    spread = f" ± {points.std(ddof=1):.3f}" if len(points) > 1 else ""
    axes.plot(
        places, points, "o^sD"[models % 4], color=pen.colour, markersize=3.5,
        label=_label(f"{name} {points.mean():.3f}{spread}"),
    )  # fmt: skip
    axes.axhline(points.mean(), color=pen.colour, linestyle=pen.dashes, linewidth=0.8, zorder=0)
    axes.set_xticks(folds)
    return _finish(axes, "fold", measure)


class _Pen(NamedTuple):
    colour: str
    dashes: str


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


def _next_pen(axes: Axes) -> _Pen:
    """Colour and dashes for one more curve of an Axes."""
    curves = len(axes.get_legend_handles_labels()[1])
    return _Pen(COLOURS[curves % len(COLOURS)], DASHES[curves % len(DASHES)])


def _named(name: str, measure: str, estimate: Estimate) -> str:
    return _label(f"{name} {measure} {estimate.point:.3f} ({estimate.low:.3f}–{estimate.high:.3f})")


def _label(text: str) -> str:
    """A line of the legend, which would leave out one that begins with an underscore."""
    text = text.strip()
    return f" {text}" if text.startswith("_") else text


def _wrap(name: str, characters: int) -> str:
    return textwrap.fill(name, characters, break_long_words=False)


def _p_value(value: float) -> str:
    if np.isnan(value):
        return "p undefined"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _draw_diagonal(axes: Axes) -> None:
    axes.axline((0, 0), (1, 1), color=_GREY, linewidth=0.6, linestyle="--", zorder=0)


def _write_numbers_at_risk(axes: Axes, curves: Mapping[str, SurvivalCurve]) -> None:
    """A row a group, below the label of the time axis, with a number under each tick."""
    ticks = [tick for tick in axes.get_xticks() if tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks)

    def write(text: str, time: float, line: int, align: str, shift_pt: float = 0) -> None:
        axes.annotate(
            text, (time, 0), (shift_pt, -34 - 10 * line), axes.get_xaxis_transform(), "offset points",
            ha=align, va="center", fontsize=_SMALL_PT, annotation_clip=False,
        )  # fmt: skip

    write("numbers at risk", 0, 0, "left")
    for line, (name, curve) in enumerate(curves.items(), start=1):
        write(name, 0, line, "right", shift_pt=-16)
        for tick in ticks:
            later = np.searchsorted(curve.time, tick)
            write(str(curve.at_risk[later] if later < len(curve.time) else 0), tick, line, "center")


def _finish(axes: Axes, x_label: str, y_label: str, *, shares: bool = False) -> Axes:
    """Labels, sizes that can be read in print, no frame; both axes from 0 to 1 where they are shares."""
    axes.set_xlabel(x_label, fontsize=_LABEL_PT, parse_math=False)
    axes.set_ylabel(y_label, fontsize=_LABEL_PT, parse_math=False)
    axes.tick_params(labelsize=_SMALL_PT)
    axes.spines[["top", "right"]].set_visible(False)
    if shares:
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    if axes.get_legend_handles_labels()[1]:  # above, where no curve can be in its way
        legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=_SMALL_PT, frameon=False)
        for line in legend.get_texts():
            line.set_parse_math(False)  # a name may hold $
    return axes
