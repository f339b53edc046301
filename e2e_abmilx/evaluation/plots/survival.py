"""Figures of survival: Kaplan–Meier curves of two risk groups, and observed against expected events."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from e2e_abmilx.evaluation.plots.style import (
    SMALL_PT,
    draw_diagonal,
    finish_axes,
    legend_label,
    new_axes,
    next_curve_style,
)
from e2e_abmilx.evaluation.risk_groups import RiskGroups, SurvivalCurve


def plot_kaplan_meier(groups: RiskGroups, *, axes: Axes | None = None) -> Axes:
    """Draw survival at low and high risk with 95 % bands and the log-rank p, above a table of the numbers at risk.

    The groups come from :func:`~e2e_abmilx.evaluation.risk_groups.stratify_by_risk`.
    """
    axes = axes or new_axes(height_mm=80)
    curves = {"low risk": groups.low, "high risk": groups.high}
    for name, curve in curves.items():
        style = next_curve_style(axes)
        axes.step(
            curve.time, curve.survival, style.dashes, where="post", color=style.colour, linewidth=1.2, label=name
        )  # fmt: skip
        axes.fill_between(curve.time, curve.low, curve.high, step="post", color=style.colour, alpha=0.15, linewidth=0)
    axes.set_xlim(0, 1.02 * max((curve.time[-1] for curve in curves.values() if len(curve.time)), default=1))
    axes.set_ylim(0, 1.02)
    axes.annotate(  # next to the legend, where it cannot cover a curve
        f"log-rank {_format_p(groups.p_value)}", (1, 1), (0, 5), "axes fraction", "offset points",
        ha="right", fontsize=SMALL_PT,
    )  # fmt: skip
    _draw_numbers_at_risk(axes, curves)
    return finish_axes(axes, "time (months)", "survival")


def plot_observed_events(expected: ArrayLike, observed: ArrayLike, *, name: str = "", axes: Axes | None = None) -> Axes:
    """Draw the observed over the expected fraction of cases with an event, one point for each of m times.

    Args:
        expected: Mean of the predicted 1 - S, shape ``(m,)``.
        observed: 1 - the Kaplan–Meier estimate; NaN where it is undefined, which is not drawn, shape ``(m,)``.
        name: Name of the curve, in the legend.
        axes: Where to draw.
    """
    axes = axes or new_axes()
    style = next_curve_style(axes)
    axes.plot(
        expected, observed, style.dashes, color=style.colour, linewidth=1.2, marker="o", markersize=3.5,
        label=legend_label(name), clip_on=False,
    )  # fmt: skip
    draw_diagonal(axes)
    return finish_axes(axes, "expected fraction with an event", "observed fraction with an event", fractions=True)


def _format_p(value: float) -> str:
    if np.isnan(value):
        return "p undefined"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _draw_numbers_at_risk(axes: Axes, curves: Mapping[str, SurvivalCurve]) -> None:
    """Draw one row per group below the label of the time axis, with a number under each tick.

    ``lifelines.plotting.add_at_risk_counts`` cannot be used: at a tick where an event happens it leaves out the case of
    that event, a group without cases cannot be fitted, and it acts on pyplot's current figure.
    """
    ticks = [tick for tick in axes.get_xticks() if tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks)

    def write(text: str, time: float, line: int, align: str, shift_pt: float = 0) -> None:
        axes.annotate(
            text, (time, 0), (shift_pt, -34 - 10 * line), axes.get_xaxis_transform(), "offset points",
            ha=align, va="center", fontsize=SMALL_PT, annotation_clip=False,
        )  # fmt: skip

    write("numbers at risk", 0, 0, "left")
    for line, (name, curve) in enumerate(curves.items(), start=1):
        write(name, 0, line, "right", shift_pt=-16)
        for tick in ticks:
            later = np.searchsorted(curve.time, tick)
            write(str(curve.at_risk[later] if later < len(curve.time) else 0), tick, line, "center")
