"""Thresholds on a probability or a risk, which are never fitted on test cases."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.columns import aligned, check_labels

FITTING_SPLITS = ("train", "val")


@dataclass(frozen=True)
class Threshold:
    """A threshold and the split that it was fitted on.

    Attributes:
        value: A score at or above it is positive, or high risk.
        split: ``"train"`` or ``"val"``.

    Raises:
        InputError: If the split is any other, such as ``"test"``.
    """

    value: float
    split: str

    def __post_init__(self) -> None:
        if self.split not in FITTING_SPLITS:
            raise InputError(
                f"a threshold was fitted on the split '{self.split}': a threshold fitted on the cases that it is"
                f" evaluated on makes the model look too good; fit it on {' or '.join(FITTING_SPLITS)}"
            )

    def reached(self, score: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which scores are at least the threshold."""
        return score >= self.value


def fit_youden_threshold(probability: ArrayLike, label: ArrayLike, *, split: str) -> Threshold:
    """Return the probability with the highest Youden index, sensitivity + specificity - 1; the lowest in a tie.

    Args:
        probability: Of the positive class, shape ``(n,)``.
        label: 1 for a positive row, 0 for a negative one, shape ``(n,)``.
        split: Split of these cases, ``"train"`` or ``"val"``.

    Raises:
        InputError: If the split is any other, or one of the two classes has no row.
    """
    scores, labels = aligned(probability=probability, label=label)
    check_labels(labels, 2)
    if len(np.unique(labels)) < 2:
        raise InputError(
            f"all {len(labels)} {split} cases are of class {labels[0]}; a threshold needs cases of both classes"
        )
    values, rank = np.unique(scores, return_inverse=True)
    positives, negatives = (np.bincount(rank, labels == number) for number in (1, 0))
    false_negatives = np.cumsum(positives) - positives
    true_negatives = np.cumsum(negatives) - negatives
    # the Youden index times both class sizes, up to a constant: integers, so that ties are exact
    youden = true_negatives * positives.sum() - false_negatives * negatives.sum()
    return Threshold(float(values[np.argmax(youden)]), split)


def fit_median_threshold(risk: ArrayLike, *, split: str) -> Threshold:
    """Return the median of risks of shape ``(n,)``; the split and errors are those of :func:`fit_youden_threshold`."""
    (risks,) = aligned(risk=risk)
    return Threshold(float(np.median(risks)), split)
