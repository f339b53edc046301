"""Figures of training: learning curves, attention sparsity, and a measure per fold."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import Estimate
from e2e_abmilx.evaluation.plots.style import finish_axes, legend_label, new_axes, next_curve_style


def plot_learning_curves(
    metrics: pd.DataFrame, columns: Mapping[str, str], *, measure: str, axes: Axes | None = None
) -> Axes:
    """Draw metrics over epochs.

    Args:
        metrics: Content of a run's ``metrics.csv``.
        columns: Column of each curve by the curve's name, such as ``{"training": "train/loss_epoch"}``.
        measure: Label of the y axis, such as ``loss``.
        axes: Where to draw.

    Raises:
        InputError: If a column is missing.
    """
    if missing := [column for column in ("epoch", *columns.values()) if column not in metrics]:
        available = ", ".join(map(str, metrics.columns))
        raise InputError(f"the metrics have no {', '.join(missing)}, only {available}; name some of these")
    axes = axes or new_axes()
    for name, column in columns.items():
        style, curve = (next_curve_style(axes), metrics[["epoch", column]].dropna().groupby("epoch")[column].last())
        axes.plot(
            curve.index, curve, style.dashes, color=style.colour, linewidth=1.2, marker="o", markersize=2.5,
            label=legend_label(name),
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return finish_axes(axes, "epoch", measure)


def plot_attention_sparsity(metrics: pd.DataFrame, *, axes: Axes | None = None) -> Axes:
    """Draw over epochs the fraction of patches that hold 95 % of the attention, in training and validation.

    Arguments and errors are those of :func:`plot_learning_curves`.
    """
    columns = {"training": "train/fraction_holding_95", "validation": "val/fraction_holding_95"}
    measure = "fraction of patches that hold\n95 % of the attention"
    axes = plot_learning_curves(metrics, columns, measure=measure, axes=axes)
    axes.set_ylim(0, 1)
    return axes


def plot_folds(estimates: Sequence[Estimate], measure: str, *, name: str = "", axes: Axes | None = None) -> Axes:
    """Draw a measure of each fold with its 95 % interval; the line and the legend give the mean over folds ± std.

    A point may lie outside its interval if resampling biases the measure.

    Args:
        estimates: One per fold.
        measure: Label of the y axis, such as ``AUC``.
        name: Name of the model, in the legend.
        axes: Where to draw.
    """
    axes = axes or new_axes()
    style, models = next_curve_style(axes), len(axes.containers)
    points, low, high = np.array([(each.point, each.low, each.high) for each in estimates]).T
    folds = np.arange(1, len(points) + 1)
    places = folds + 0.15 * models
    axes.errorbar(places, (low + high) / 2, (high - low) / 2, fmt="none", ecolor=style.colour, elinewidth=1, capsize=2)
    spread = f" ± {points.std(ddof=1):.3f}" if len(points) > 1 else ""
    axes.plot(
        places, points, "o^sD"[models % 4], color=style.colour, markersize=3.5,
        label=legend_label(f"{name} {points.mean():.3f}{spread}"),
    )  # fmt: skip
    axes.axhline(points.mean(), color=style.colour, linestyle=style.dashes, linewidth=0.8, zorder=0)
    axes.set_xticks(folds)
    return finish_axes(axes, "fold", measure)
