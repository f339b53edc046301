"""Calibration of predicted survival: the slope of a Cox model, and observed against expected events."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.evaluation.columns import aligned
from e2e_abmilx.evaluation.estimators import Estimator, Weight, ratio
from e2e_abmilx.evaluation.recalibration import EPSILON

_MOST_STEPS = 100  # Newton's method needs about ten
_TINY = np.finfo(np.float64).tiny  # instead of a sum that is rounded to 0


def log_cumulative_hazard(survival: ArrayLike) -> NDArray[np.float64]:
    """Return log(-log S), the complementary log-log of 1 - S, of probabilities clipped by `EPSILON`."""
    clipped = np.asarray(survival, dtype=np.float64).clip(EPSILON, 1 - EPSILON)
    hazard: NDArray[np.float64] = np.log(-np.log(clipped))
    return hazard


class CoxSlope(Estimator):
    r"""The coefficient b of a Cox model of a predicted log hazard x, where the hazard is :math:`h_0(t) e^{b x}`.

    1 is calibrated, below 1 the predictions are too extreme, above 1 too moderate. Of events at the same time the
    partial likelihood is Breslow's, in which a row of weight 2 equals two rows. The slope is undefined where that
    likelihood has no maximum: without events, for equal predictions, or if every event has the highest (or every event
    the lowest) prediction of the rows then at risk.

    Args:
        score: Predicted log hazard, or log cumulative hazard at a fixed time, shape ``(n,)``.
        time: Months until the event or the censoring, shape ``(n,)``.
        event: 1 where the event happened, 0 where the case was censored, shape ``(n,)``.

    Raises:
        InputError: If the columns differ in length or hold NaN.
    """

    def __init__(self, score: ArrayLike, time: ArrayLike, event: ArrayLike) -> None:
        scores, times, events = aligned(score=score, time=time, event=event)
        self.rows, self.order = len(scores), np.argsort(-times, kind="stable")
        ordered = times[self.order]
        self.score, self.event = scores[self.order].astype(np.float64), events[self.order] == 1
        self.latest = np.searchsorted(-ordered, -ordered, side="right") - 1  # the last row at risk at each row's time

    def __call__(self, weight: Weight) -> float:
        """Return the coefficient."""
        drawn = weight[self.order]
        happened = self.event & (drawn > 0)
        if not self._has_maximum(drawn, happened):
            return np.nan
        score = self.score - self.score[drawn > 0].mean()
        powers = drawn * np.stack([np.ones(len(score)), score, score**2])
        beta, here = 0.0, self._log_likelihood(0.0, powers, score, happened)
        for _ in range(_MOST_STEPS):
            step = ratio(here[1], here[2])
            while (there := self._log_likelihood(beta + step, powers, score, happened))[0] < here[0] and abs(
                step
            ) > 1e-9:
                step /= 2
            beta, here = beta + step, there
            if abs(step) <= 1e-9 * (1 + abs(beta)):
                return beta
        return np.nan

    def _has_maximum(self, drawn: Weight, happened: NDArray[np.bool_]) -> bool:
        """Return whether some event has less, and some event more, than the extreme score of the rows at risk."""
        highest = np.maximum.accumulate(np.where(drawn > 0, self.score, -np.inf))[self.latest]
        lowest = np.minimum.accumulate(np.where(drawn > 0, self.score, np.inf))[self.latest]
        score = self.score
        return bool((score < highest)[happened].any() and (score > lowest)[happened].any())

    def _log_likelihood(
        self, beta: float, powers: NDArray[np.float64], score: NDArray[np.float64], happened: NDArray[np.bool_]
    ) -> tuple[float, float, float]:
        """Return the log partial likelihood, its derivative and minus its second derivative.

        The powers are the weight times the score to the power of 0, 1 and 2, shape ``(3, n)``.
        """
        exponent = beta * score
        highest = exponent[powers[0] > 0].max()
        sums = np.cumsum(powers * np.exp(np.minimum(exponent - highest, 0)), axis=1)[:, self.latest[happened]]
        count, total = powers[0, happened], np.maximum(sums[0], _TINY)
        mean = sums[1] / total
        value = count @ (exponent[happened] - highest - np.log(total))
        return float(value), float(count @ (score[happened] - mean)), float(count @ (sums[2] / total - mean**2))


class ObservedToExpected(Estimator):
    r"""Observed events up to a time t divided by expected ones, :math:`(1 - \mathrm{KM}(t)) / \overline{1 - S(t)}`.

    KM is the Kaplan–Meier estimate of the drawn rows. 1 is calibrated, below 1 the model predicts too many events, above
    1 too few. It is undefined where no row is followed up to t, or no event is expected.

    Args:
        survival: Predicted probability of surviving t, shape ``(n,)``.
        time: Months until the event or the censoring, shape ``(n,)``.
        event: 1 where the event happened, 0 where the case was censored, shape ``(n,)``.
        months: t.

    Raises:
        InputError: If the columns differ in length or hold NaN.
    """

    def __init__(self, survival: ArrayLike, time: ArrayLike, event: ArrayLike, months: float) -> None:
        alive, times, events = aligned(survival=survival, time=time, event=event)
        self.rows, self.expected = len(alive), 1 - alive.astype(np.float64)
        moments, self.moment = np.unique(times, return_inverse=True)
        self.event, self.passed, self.followed = events == 1, moments <= months, times >= months

    def __call__(self, weight: Weight) -> float:
        """Return the ratio."""
        observed = self.observed(weight)
        return ratio(observed * float(weight.sum()), float(weight @ self.expected))

    def observed(self, weight: Weight) -> float:
        """Return 1 - KM(t); NaN if no drawn row is followed up to t, unless all have died before."""
        events = np.bincount(self.moment, weight * self.event)
        leaving = np.bincount(self.moment, weight)
        at_risk = np.cumsum(leaving[::-1])[::-1]
        survival = float(np.prod(1 - events[self.passed] / np.maximum(at_risk[self.passed], 1)))
        return 1 - survival if survival == 0 or weight[self.followed].any() else np.nan
