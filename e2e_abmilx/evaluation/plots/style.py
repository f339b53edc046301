"""The style that all figures share: size, colours, dashes, legend and axes."""

from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from e2e_abmilx.evaluation.bootstrap import Estimate

#: Okabe and Ito's palette, which colour-blind people can distinguish; without yellow, which is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

#: Line styles, which distinguish curves in print without colour.
DASHES = ("-", "--", "-.", ":")

GREY = "#767676"
SMALL_PT = 7.0  # font size of everything but the axis labels

_LABEL_PT = 8.0
_COLUMN_MM, _HEIGHT_MM, _DPI = 85.0, 70.0, 200


class CurveStyle(NamedTuple):
    """How a curve is drawn."""

    colour: str
    dashes: str


def new_axes(*, height_mm: float = _HEIGHT_MM) -> Axes:
    """Return the Axes of a new figure as wide as a journal's column, 85 mm."""
    size = (_COLUMN_MM / 25.4, height_mm / 25.4)
    return plt.figure(figsize=size, dpi=_DPI, layout="constrained").add_subplot()


def next_curve_style(axes: Axes) -> CurveStyle:
    """Return the style of the next curve of an Axes."""
    curves = len(axes.get_legend_handles_labels()[1])
    return CurveStyle(COLOURS[curves % len(COLOURS)], DASHES[curves % len(DASHES)])


def legend_label(text: str) -> str:
    """Return the text such that matplotlib's legend shows it: a legend omits labels that begin with an underscore."""
    text = text.strip()
    return f" {text}" if text.startswith("_") else text


def label_with_interval(name: str, measure: str, estimate: Estimate) -> str:
    """Return the legend label of a curve, with an estimate and its interval."""
    return legend_label(f"{name} {measure} {estimate.point:.3f} ({estimate.low:.3f}–{estimate.high:.3f})")


def draw_diagonal(axes: Axes) -> None:
    """Draw a grey line of equal x and y."""
    axes.axline((0, 0), (1, 1), color=GREY, linewidth=0.6, linestyle="--", zorder=0)


def finish_axes(axes: Axes, x_label: str, y_label: str, *, fractions: bool = False) -> Axes:
    """Label the axes, set sizes that are legible in print, and place the legend above; ``fractions`` run from 0 to 1."""
    axes.set_xlabel(x_label, fontsize=_LABEL_PT, parse_math=False)
    axes.set_ylabel(y_label, fontsize=_LABEL_PT, parse_math=False)
    axes.tick_params(labelsize=SMALL_PT)
    axes.spines[["top", "right"]].set_visible(False)
    if fractions:
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    if axes.get_legend_handles_labels()[1]:  # above the axes, where it cannot cover a curve
        legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=SMALL_PT, frameon=False)
        for line in legend.get_texts():
            line.set_parse_math(False)  # a name may contain $
    return axes
