"""Figures for papers: one function a figure, each takes results and an Axes and returns the Axes.

Without an Axes a figure as wide as a journal's column is made, by pyplot, so that a notebook shows it.
Functions that draw a curve may be called again on the same Axes, to compare. Nothing global is changed.
"""

import textwrap
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from e2e_abmilx.evaluation.bootstrap import Estimate

#: Okabe and Ito's colours, which colour-blind people can tell apart; yellow, too pale for lines, is left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


#: Curves differ by these too, for prints without colour.
DASHES = ("-", "--", "-.", ":")


_COLUMN_MM, _HEIGHT_MM, _DPI = 85.0, 70.0, 200


_LABEL_PT, SMALL_PT = 8.0, 7.0


GREY = "#767676"


ROOMY_CLASSES, TICK_CHARACTERS = 8, 30  # classes with two lines of text in a cell; characters along an axis


FALSE_POSITIVE_RATES = np.linspace(0, 1, 201)  # where the band of an ROC curve is measured


def new_axes(*, height_mm: float = _HEIGHT_MM) -> Axes:
    """Make a figure of one Axes, as wide as a journal's column, 85 mm."""
    size = (_COLUMN_MM / 25.4, height_mm / 25.4)
    return plt.figure(figsize=size, dpi=_DPI, layout="constrained").add_subplot()


class _Pen(NamedTuple):
    colour: str
    dashes: str


def next_pen(axes: Axes) -> _Pen:
    """Colour and dashes for one more curve of an Axes."""
    curves = len(axes.get_legend_handles_labels()[1])
    return _Pen(COLOURS[curves % len(COLOURS)], DASHES[curves % len(DASHES)])


def named(name: str, measure: str, estimate: Estimate) -> str:
    """A curve's name in the legend, with an estimate and its interval."""
    return label_axes(f"{name} {measure} {estimate.point:.3f} ({estimate.low:.3f}–{estimate.high:.3f})")


def label_axes(text: str) -> str:
    """A line of the legend, which would leave out one that begins with an underscore."""
    text = text.strip()
    return f" {text}" if text.startswith("_") else text


def wrap(name: str, characters: int) -> str:
    """Break a name into lines."""
    return textwrap.fill(name, characters, break_long_words=False)


def finish(axes: Axes, x_label: str, y_label: str, *, shares: bool = False) -> Axes:
    """Labels, sizes that can be read in print, no frame; both axes from 0 to 1 where they are shares."""
    axes.set_xlabel(x_label, fontsize=_LABEL_PT, parse_math=False)
    axes.set_ylabel(y_label, fontsize=_LABEL_PT, parse_math=False)
    axes.tick_params(labelsize=SMALL_PT)
    axes.spines[["top", "right"]].set_visible(False)
    if shares:
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    if axes.get_legend_handles_labels()[1]:  # above, where no curve can be in its way
        legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=SMALL_PT, frameon=False)
        for line in legend.get_texts():
            line.set_parse_math(False)  # a name may hold $
    return axes
