"""The metrics of a test as people name them, for a terminal."""

import math
from collections.abc import Mapping

_NAMES = {
    "auc": "AUC", "c_index": "C-index", "f1": "F1", "ece": "calibration error (ECE)", "kappa": "Cohen's κ", "qwk": "quadratic κ",
    "r2": "R²", "mae": "mean absolute error", "brier": "Brier score", "pearson": "Pearson's r", "spearman": "Spearman's ρ",
}  # fmt: skip


def metric_table(metrics: Mapping[str, float]) -> str:
    """Return a line per metric with three digits; those that do not apply (NaN) have a dash.

    Args:
        metrics: Values by full names, such as ``test/auc``.
    """
    names = {name: _NAMES.get(short := name.rpartition("/")[2], short.replace("_", " ")) for name in metrics}
    width = max(map(len, names.values()), default=0)
    return "\n".join(f"  {names[name]:{width}}  {_three_digits(float(value))}" for name, value in metrics.items())


def _three_digits(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
