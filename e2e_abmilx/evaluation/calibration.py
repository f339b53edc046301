"""Calibration: whether events with a predicted probability of 0.8 happen four times in five."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.evaluation.columns import aligned, check_labels


class ReliabilityCurve(NamedTuple):
    """Predicted probability and observed frequency in equal bins of [0, 1]; empty bins are left out.

    Attributes:
        confidence: Mean probability in each of m bins, shape ``(m,)``.
        frequency: Fraction of the rows whose prediction came true, shape ``(m,)``.
        rows: Number of rows, shape ``(m,)``.
    """

    confidence: NDArray[np.float64]
    frequency: NDArray[np.float64]
    rows: NDArray[np.int64]

    @property
    def expected_calibration_error(self) -> float:
        """Mean difference between probability and frequency over the rows (ECE, Guo et al. 2017)."""
        return float(np.average(np.abs(self.confidence - self.frequency), weights=self.rows))


def reliability_curve(probability: ArrayLike, label: ArrayLike, *, bins: int = 15) -> ReliabilityCurve:
    """Bin the probability of the positive class, or of the predicted class.

    Args:
        probability: Of the positive class, shape ``(n,)``, or of each class, shape ``(n, K)``. In the second case a
            prediction comes true if the most probable class is the label.
        label: Class of each row, 0 … K-1, shape ``(n,)``.
        bins: Number of bins; 15 is the default of torchmetrics and of most papers.

    Raises:
        InputError: If a label is not a class, or a value is NaN.
    """
    scores, labels = aligned(probability=probability, label=label)
    check_labels(labels, 2 if scores.ndim == 1 else scores.shape[1])
    if scores.ndim == 1:
        confidence, came_true = scores, labels == 1
    else:
        confidence, came_true = scores.max(axis=1), scores.argmax(axis=1) == labels
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    _, bin_of_row, rows = np.unique(
        np.searchsorted(inner, confidence, side="right"), return_inverse=True, return_counts=True
    )
    return ReliabilityCurve(np.bincount(bin_of_row, confidence) / rows, np.bincount(bin_of_row, came_true) / rows, rows)
