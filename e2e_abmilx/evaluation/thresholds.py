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
    """A threshold, and how it was fitted.

    Attributes:
        value: A score at or above it is positive, or high risk.
        split: Split of the cases that it was fitted on, ``"train"`` or ``"val"``.
        cases: Number of these cases; 0 if unknown, as in checkpoints of earlier releases.
        rule: What was fitted, such as "highest Youden index"; empty if unknown.

    Raises:
        InputError: If the split is any other, such as ``"test"``.
    """

    value: float
    split: str
    cases: int = 0
    rule: str = ""

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
    """Return the threshold with the highest Youden index, J = sensitivity + specificity - 1.

    J changes only at the scores of the cases. The threshold is the middle between the lowest score that is positive and
    the next lower one, so that a new case needs a score nearer to the positive ones; on separable scores this is the
    middle of the gap. If J is highest with all cases positive, it is their lowest score. In a tie the lowest threshold is
    taken, which has the highest sensitivity: the usual positive class is a disease, and to miss it is the worse error.

    Args:
        probability: Of the positive class, shape ``(n,)``.
        label: 1 for a positive row, 0 for a negative one, shape ``(n,)``.
        split: Split of these cases, ``"train"`` or ``"val"``.

    Raises:
        InputError: If the split is any other, or one of the two classes has no row.
    """
    scores, positives, negatives = _count_by_score(probability, label, split)
    false_negatives = np.cumsum(positives) - positives
    true_negatives = np.cumsum(negatives) - negatives
    # the Youden index times both class sizes, up to a constant: integers, so that ties are exact
    youden = true_negatives * positives.sum() - false_negatives * negatives.sum()
    value = _middle_below(scores, int(np.argmax(youden)))
    return Threshold(value, split, cases=int(positives.sum() + negatives.sum()), rule="highest Youden index")


def fit_sensitivity_threshold(probability: ArrayLike, label: ArrayLike, sensitivity: float, *, split: str) -> Threshold:
    """Return the highest threshold with at least a stated sensitivity, which has the highest specificity among these.

    As in :func:`fit_youden_threshold`, it is the middle between the lowest score that is positive and the next lower one.

    Args:
        probability: Of the positive class, shape ``(n,)``.
        label: 1 for a positive row, 0 for a negative one, shape ``(n,)``.
        sensitivity: Fraction of the positive rows that must reach the threshold, in (0, 1].
        split: Split of these cases, ``"train"`` or ``"val"``.

    Raises:
        InputError: If the sensitivity or the split is any other, or one of the two classes has no row.
    """
    check_sensitivity(sensitivity)
    scores, positives, negatives = _count_by_score(probability, label, split)
    reached = positives[::-1].cumsum()[::-1] / positives.sum()
    value = _middle_below(scores, int(np.flatnonzero(reached >= sensitivity)[-1]))
    rule = f"sensitivity of at least {sensitivity}"
    return Threshold(value, split, cases=int(positives.sum() + negatives.sum()), rule=rule)


def fit_median_threshold(risk: ArrayLike, *, split: str) -> Threshold:
    """Return the median of risks of shape ``(n,)``; the split and errors are those of :func:`fit_youden_threshold`."""
    (risks,) = aligned(risk=risk)
    return Threshold(float(np.median(risks)), split, cases=len(risks), rule="median risk")


def check_sensitivity(sensitivity: float) -> None:
    """Refuse, by an InputError, a sensitivity outside (0, 1]."""
    if not 0 < sensitivity <= 1:
        raise InputError(f"sensitivity is {sensitivity}; it is a fraction and must lie in (0, 1], such as 0.95")


def _count_by_score(probability: ArrayLike, label: ArrayLike, split: str) -> tuple[NDArray[Any], ...]:
    """Return the distinct scores in ascending order, and the positive and the negative rows with each."""
    scores, labels = aligned(probability=probability, label=label)
    check_labels(labels, 2)
    if len(np.unique(labels)) < 2:
        raise InputError(
            f"all {len(labels)} {split} cases are of class {labels[0]}; a threshold needs cases of both classes"
        )
    values, rank = np.unique(scores, return_inverse=True)
    return values, *(np.bincount(rank, labels == number).astype(np.int64) for number in (1, 0))


def _middle_below(scores: NDArray[Any], lowest: int) -> float:
    """Return the middle between a score, given by its place in ascending order, and the next lower one.

    Neighbours in float32, the precision of scores and of ``metrics.csv``, have nothing between them: their middle is
    rounded to one of them, and if that is the lower one, which must stay below the threshold, the upper one is returned.
    """
    upper = float(scores[lowest])
    if lowest == 0:
        return upper
    lower = float(scores[lowest - 1])
    middle = float(np.float32((lower + upper) / 2))
    return middle if lower < middle <= upper else upper
