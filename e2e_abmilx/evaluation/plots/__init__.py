"""Figures for papers: one function a figure, each takes results and an Axes and returns the Axes.

Without an Axes a figure as wide as a journal's column is made, by pyplot, so that a notebook shows it.
Functions that draw a curve may be called again on the same Axes, to compare. Nothing global is changed.
"""

from e2e_abmilx.evaluation.plots.classification import (
    plot_confusion_matrix,
    plot_precision_recall,
    plot_reliability,
    plot_roc,
)
from e2e_abmilx.evaluation.plots.style import COLOURS, DASHES, new_axes
from e2e_abmilx.evaluation.plots.survival import plot_kaplan_meier
from e2e_abmilx.evaluation.plots.training import plot_attention_sparsity, plot_folds, plot_learning_curves

__all__ = [
    "COLOURS",
    "DASHES",
    "new_axes",
    "plot_attention_sparsity",
    "plot_confusion_matrix",
    "plot_folds",
    "plot_kaplan_meier",
    "plot_learning_curves",
    "plot_precision_recall",
    "plot_reliability",
    "plot_roc",
]
