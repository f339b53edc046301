"""The integrated Brier score of predicted survival, weighted by the inverse probability of censoring."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.columns import aligned


class Censoring:
    """Kaplan–Meier estimate of G, the probability of not yet being censored.

    Where an event and a censoring have the same time, the event comes first.

    Args:
        time: Months until the event or the censoring of the training cases, shape ``(n,)``.
        event: 1 where the event happened, 0 where the case was censored, shape ``(n,)``.
    """

    def __init__(self, time: ArrayLike, event: ArrayLike) -> None:
        times, events = aligned(time=time, event=event)
        self.time, moment, size = np.unique(times, return_inverse=True, return_counts=True)
        events_there = np.bincount(moment, events, minlength=len(self.time))
        censored = size - events_there
        at_risk = len(times) - np.cumsum(size) + censored  # without the events at the same time
        #: G before the first time, then after each of them
        self.steps = np.concatenate([[1.0], np.cumprod(1 - censored / np.maximum(at_risk, 1))])

    def after(self, time: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return G(t) = P(censored after t), in the shape of the times."""
        return self.steps[np.searchsorted(self.time, time, side="right")]

    def from_on(self, time: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return G(t-) = P(censored at t or after), in the shape of the times."""
        return self.steps[np.searchsorted(self.time, time, side="left")]

    def integral(self, time: NDArray[np.float64], horizon: float) -> NDArray[np.float64]:
        """Return the integral of 1 / G from 0 to each time, which must not exceed the horizon.

        Raises:
            InputError: If no training case is followed beyond the horizon.
        """
        knots = np.concatenate([[0.0], self.time[(self.time > 0) & (self.time < horizon)], [horizon]])
        remaining = self.after(knots)
        if not remaining[-1]:
            raise InputError(
                f"no training case is followed beyond {horizon} months, so the Brier score has no weights there;"
                f" choose a horizon below {self.time[-1]} months"
            )
        areas = np.diff(knots) / remaining[:-1]
        integral: NDArray[np.float64] = np.interp(time, knots, np.concatenate([[0.0], np.cumsum(areas)]))
        return integral


def case_brier_scores(
    survival: ArrayLike, edges: ArrayLike, time: ArrayLike, event: ArrayLike, *, censoring: Censoring, horizon: float
) -> NDArray[np.float64]:
    r"""Return the integrated Brier score of each case, so that a bootstrap can weight cases.

    With predicted survival S, horizon τ and the probability G of not being censored, estimated on the training cases,
    the score of a case with an event (δ = 1) or a censoring (δ = 0) at time T is (Graf et al. 1999)

    .. math::
        \frac{1}{\tau} \int_0^\tau \frac{(1 - S(t))^2 \, [T > t]}{G(t)} +
        \frac{S(t)^2 \, [T \le t, \delta = 1]}{G(T-)} \, dt

    S is a step function: 1 before the first edge, then the prediction for the last edge passed. The integral is therefore
    exact, not a sum over a grid of times.

    Args:
        survival: Probability of surviving each of K edges, shape ``(n, K)``: :math:`\prod_{j \le k} (1 - h_j)`.
        edges: Ends of the time bins in months, increasing, shape ``(K,)``.
        time: Months until the event or the censoring, shape ``(n,)``.
        event: 1 where the event happened, 0 where the case was censored, shape ``(n,)``.
        censoring: Estimate from the training cases.
        horizon: τ in months.

    Returns:
        Scores, shape ``(n,)``; their mean is the integrated Brier score: 0 is perfect, 0.25 is a constant 0.5.

    Raises:
        InputError: If the numbers of bins differ, the edges do not increase, the horizon is not above 0, or no training
            case is followed beyond it.
    """
    alive, times, events = aligned(survival=survival, time=time, event=event)
    ends = np.asarray(edges, dtype=np.float64)
    _check_bins(alive, ends, horizon)
    bounds = np.concatenate([[0.0], ends, [np.inf]]).clip(0, horizon)
    level = np.concatenate([np.ones((len(alive), 1)), alive], axis=1)
    last = np.minimum(times, horizon).astype(np.float64)[:, None]
    followed = np.minimum(bounds, last)
    before = np.diff(censoring.integral(followed, horizon), axis=1)
    after = np.diff(bounds - followed, axis=1) * events[:, None] / censoring.from_on(last)
    scores: NDArray[np.float64] = ((1 - level) ** 2 * before + level**2 * after).sum(axis=1) / horizon
    return scores


def _check_bins(survival: NDArray[np.float64], edges: NDArray[np.float64], horizon: float) -> None:
    if survival.shape[1:] != edges.shape:
        raise InputError(f"survival of shape {survival.shape} for {len(edges)} edges; give one column per bin")
    if not (np.diff(edges) > 0).all():
        raise InputError(f"the edges {edges.tolist()} do not increase; give the ends of the bins in order of time")
    if not 0 < horizon < np.inf:
        raise InputError(f"a horizon of {horizon} months; it must be above 0 and finite, such as the last edge")
