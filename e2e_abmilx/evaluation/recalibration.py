"""Calibration slope and intercept of predicted probabilities, by logistic recalibration."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from e2e_abmilx.evaluation.columns import aligned, check_labels
from e2e_abmilx.evaluation.estimators import Estimator, Weight

#: Probabilities are clipped to [EPSILON, 1 - EPSILON] before their log odds are taken: a softmax in single precision
#: rounds to exactly 1 from about 1 - 6e-8 on. The largest log odds are therefore ±16.1.
EPSILON = 1e-7

_MOST_STEPS = 100  # Newton's method needs about ten
_LARGEST_STEP = 4.0  # in log odds: where all probabilities are close to 0 or 1, a full step would be endless


def log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log(p / (1 - p)) of probabilities clipped by `EPSILON`."""
    clipped = np.asarray(probability, dtype=np.float64).clip(EPSILON, 1 - EPSILON)
    odds: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return odds


class CalibrationSlope(Estimator):
    r"""The slope b of a logistic regression of the label on the log odds of the predicted probability p (Cox 1958).

    .. math:: \operatorname{logit} P(y = 1) = a + b \operatorname{logit}(p)

    1 is calibrated, below 1 the probabilities are too extreme, above 1 too moderate (Van Calster et al. 2019). It is
    undefined where the log odds of the two labels do not overlap: one label has no row, all probabilities are equal, or
    the labels are perfectly separated, for which the likelihood grows with b without end.

    Args:
        probability: Of the positive class, shape ``(n,)``.
        label: 1 for a positive row, 0 for a negative one, shape ``(n,)``.

    Raises:
        InputError: If the columns differ in length or hold NaN, or a label is neither 0 nor 1.
    """

    def __init__(self, probability: ArrayLike, label: ArrayLike) -> None:
        scores, labels = aligned(probability=probability, label=label)
        check_labels(labels, 2)
        self.rows, self.odds, self.positive = len(labels), log_odds(scores), labels == 1

    def __call__(self, weight: Weight) -> float:
        """Return the slope."""
        drawn = weight > 0
        odds, positive, weight = self.odds[drawn], self.positive[drawn], weight[drawn]
        if not positive.any() or positive.all():
            return np.nan
        ours, theirs = odds[positive], odds[~positive]
        if ours.max() <= theirs.min() or theirs.max() <= ours.min():
            return np.nan
        design = np.stack([np.ones(len(odds)), odds], axis=1)
        return float(_fit(design, positive, weight, np.zeros(len(odds)))[1])


class CalibrationIntercept(CalibrationSlope):
    r"""Calibration in the large: the intercept a of a logistic regression with the log odds as an offset.

    .. math:: \operatorname{logit} P(y = 1) = a + \operatorname{logit}(p)

    0 is calibrated; below 0 the probabilities are too high on average, above 0 too low. It is undefined where one label
    has no row. Arguments and errors are those of :class:`CalibrationSlope`.
    """

    def __call__(self, weight: Weight) -> float:
        """Return the intercept."""
        drawn = weight > 0
        odds, positive, weight = self.odds[drawn], self.positive[drawn], weight[drawn]
        if not positive.any() or positive.all():
            return np.nan
        return float(_fit(np.ones((len(odds), 1)), positive, weight, odds)[0])


def _fit(
    design: NDArray[np.float64], positive: NDArray[np.bool_], weight: Weight, offset: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the coefficients of a logistic regression, shape ``(k,)``; NaN if Newton's method does not converge.

    The log-likelihood is concave. A step that does not raise it is halved.
    """
    signed = np.where(positive, 1.0, -1.0)

    def log_likelihood(at: NDArray[np.float64]) -> float:
        return -float(weight @ np.logaddexp(0, -signed * (design @ at + offset)))

    coefficients = np.zeros(design.shape[1])
    value = log_likelihood(coefficients)
    for _ in range(_MOST_STEPS):
        probability = expit(design @ coefficients + offset)
        gradient = design.T @ (weight * (positive - probability))
        information = (design.T * (weight * probability * (1 - probability))) @ design
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            break
        step *= min(1.0, _LARGEST_STEP / max(np.abs(design @ step).max(), 1e-300))
        while (new := log_likelihood(coefficients + step)) < value and np.abs(step).max() > 1e-9:
            step /= 2
        coefficients, value = coefficients + step, new
        if np.abs(step).max() <= 1e-9 * (1 + np.abs(coefficients).max()):
            return coefficients
    return np.full(design.shape[1], np.nan)
