"""Predicted against true values."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from e2e_abmilx.evaluation.bootstrap import bootstrap
from e2e_abmilx.evaluation.plots.style import COLOURS, draw_diagonal, finish_axes, label_with_interval, new_axes
from e2e_abmilx.evaluation.regression import RSquared


def plot_predicted_values(
    predicted: ArrayLike, value: ArrayLike, cases: Sequence[str], *, name: str = "", axes: Axes | None = None
) -> Axes:
    """Draw predicted against true values, one point per row, and the line on which they are equal.

    The legend gives R² with its 95 % interval over cases.

    Args:
        predicted: Predicted value of each row, shape ``(n,)``.
        value: True value of each row, shape ``(n,)``.
        cases: Case of each row, shape ``(n,)``.
        name: Name of the model, in the legend.
        axes: Where to draw.

    Raises:
        InputError: If the columns are empty, differ in length, or hold NaN.
    """
    axes = axes or new_axes()
    measured = RSquared(predicted, value)
    label = label_with_interval(name, "R²", bootstrap(measured, cases))
    axes.scatter(measured.value, measured.predicted, s=9, color=COLOURS[0], alpha=0.6, linewidths=0, label=label)
    draw_diagonal(axes)
    shown = np.concatenate([measured.value, measured.predicted])
    margin = 0.04 * np.ptp(shown) or 1.0
    ends = (shown.min() - margin, shown.max() + margin)
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    return finish_axes(axes, "true value", "predicted value")
