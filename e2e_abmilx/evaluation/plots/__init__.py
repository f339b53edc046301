"""Figures for papers: each function takes results and an Axes, and returns the Axes.

Without an Axes, a function creates a figure of a journal's column width with pyplot, so that a notebook shows it.
Functions that draw a curve can be called again on the same Axes, to compare. No global setting is changed.

- ``classification``: ROC, precision–recall, confusion matrix and reliability
- ``regression``: predicted against true values
- ``survival``: Kaplan–Meier curves of two risk groups, and observed against expected events
- ``faithfulness``: deletion and insertion curves of heatmaps
- ``training``: learning curves, attention sparsity, a measure per fold
- ``style``: colours, sizes, legends and axes that all figures share
"""

from e2e_abmilx.evaluation.plots.classification import (
    plot_confusion_matrix,
    plot_precision_recall,
    plot_reliability,
    plot_roc,
)
from e2e_abmilx.evaluation.plots.faithfulness import plot_patch_removal
from e2e_abmilx.evaluation.plots.regression import plot_predicted_values
from e2e_abmilx.evaluation.plots.style import COLOURS, DASHES, new_axes
from e2e_abmilx.evaluation.plots.survival import plot_kaplan_meier, plot_observed_events
from e2e_abmilx.evaluation.plots.training import plot_attention_sparsity, plot_folds, plot_learning_curves

__all__ = [
    "COLOURS", "DASHES", "new_axes", "plot_attention_sparsity", "plot_confusion_matrix", "plot_folds",
    "plot_kaplan_meier", "plot_learning_curves", "plot_observed_events", "plot_patch_removal",
    "plot_precision_recall", "plot_predicted_values", "plot_reliability", "plot_roc",
]  # fmt: skip
