"""Statistical power: the difference in AUC, C-index or correlation that a number of test cases can show.

Two models are compared on the same cases, in a two-sided test at level α. Their estimates have the standard deviations
σ₁ and σ₂ and the correlation r, so that a difference d is found with the power

    Φ(|d|/σ - z) + Φ(-|d|/σ - z),   σ² = σ₁² + σ₂² - 2 r σ₁ σ₂,   z = Φ⁻¹(1 - α/2).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import owens_t
from scipy.stats import norm

from e2e_abmilx.evaluation.columns import aligned
from e2e_abmilx.evaluation.concordance import Concordance
from e2e_abmilx.evaluation.risk_groups import kaplan_meier

#: Correlation of the estimates of two models on the same cases, where it is not known.
CORRELATION = 0.5
ALPHA = 0.05
POWER = 0.8

_STRENGTHS = (0.0, 0.25, 0.5, 0.8, 1.2, 2.0, 4.0)  # of a marker, in std of its noise
_DRAWS = 300  # resamples per strength
_MOST_CASES = 200  # in a resample; the variance of more follows from 1/n


def auc_std(auc: float, positives: int, negatives: int) -> float:
    """Return the standard deviation of an AUC by the equation of Hanley and McNeil (1982), doi:10.1148/radiology.143.1.7063747.

    With P positives and N negatives the variance is (A(1 - A) + (P - 1)(Q - A²) + (N - 1)(Q - A²)) / (P N), where Q is
    the probability that two positives both score above one negative. It is that of normal scores with equal variance,
    Q = A - 2 T(Φ⁻¹(A), 1/√3) with Owen's T, because their approximation by exponential scores gives an eighth more at an
    AUC of 0.9. NaN without positives or without negatives.
    """
    if not positives or not negatives:
        return float("nan")
    both = auc - 2 * owens_t(norm.ppf(auc), 1 / np.sqrt(3))
    spread = auc * (1 - auc) + (positives + negatives - 2) * (both - auc**2)
    return float(np.sqrt(spread / (positives * negatives)))


def paired_power(
    difference: float, std: float, other_std: float, *, correlation: float = CORRELATION, alpha: float = ALPHA
) -> float:
    """Return the power to find a difference of two models; the module states the equation."""
    spread = np.sqrt(std**2 + other_std**2 - 2 * correlation * std * other_std)
    z = norm.ppf(1 - alpha / 2)
    return float(norm.cdf(abs(difference) / spread - z) + norm.cdf(-abs(difference) / spread - z))


def smallest_difference(
    std_at: Callable[[float], float],
    measure: float,
    *,
    largest: float = 1.0,
    correlation: float = CORRELATION,
    power: float = POWER,
    alpha: float = ALPHA,
) -> float:
    """Return the smallest improvement of a measure that is found with this power.

    Args:
        std_at: The standard deviation of the measure as a function of its value.
        measure: Value of the worse model.
        largest: Greatest possible value of the measure.
        correlation: Correlation of the two models' estimates.
        power: Probability that the test finds the difference.
        alpha: Level of the two-sided test.

    Returns:
        The difference; NaN if even the greatest possible one is found less often.
    """

    def lacking(difference: float) -> float:
        stds = std_at(measure), std_at(measure + difference)
        return paired_power(difference, *stds, correlation=correlation, alpha=alpha) - power

    room = largest - measure - 1e-6
    return float(brentq(lacking, 1e-6, room, xtol=1e-5)) if lacking(room) >= 0 else float("nan")


def correlation_std(cases: int) -> float:
    """Return the standard deviation of Fisher's z = artanh(r), which is 1/√(n - 3); NaN for fewer than four cases."""
    return float(1 / np.sqrt(cases - 3)) if cases > 3 else float("nan")


class ConcordanceSpread:
    """The standard deviation of Harrell's C-index on cases with these times and events, by simulation.

    Simulation is what Riley et al. (2022), doi:10.1002/sim.9275, propose for the C-index, whose variance depends on the
    pattern of censoring. Each resample draws cases with replacement and gives them a risk s·x + ε, where x is the normal
    score of the survival at the case's event time and ε is standard normal. A censored case draws its event time
    from those after its censoring, by the Kaplan-Meier curve. The strength s sets the mean C-index.

    Args:
        time: Months until the event or the censoring, shape ``(n,)``.
        event: 1 where the event happened, shape ``(n,)``.
        seed: Seed of the simulation.
    """

    def __init__(self, time: ArrayLike, event: ArrayLike, seed: int = 0) -> None:
        times, events = aligned(time=time, event=event)
        rng = np.random.default_rng(seed)
        curve = kaplan_meier(times.astype(float), events.astype(int))
        survival = curve.survival[np.searchsorted(curve.time, times, side="right") - 1]
        simulated = [self._simulate(rng, strength, times, events, survival) for strength in _STRENGTHS]
        means, stds = np.array([[np.nanmean(values), np.nanstd(values, ddof=1)] for values in simulated]).T
        self._curve = np.polynomial.Polynomial.fit(means, stds, 2)  # evens out the noise of the simulation
        self._ends = means.min(), means.max()

    def __call__(self, concordance: float) -> float:
        """Return the standard deviation of a C-index whose expected value is ``concordance``; it falls to 0 at 1."""
        low, high = self._ends
        inside = float(max(self._curve(np.clip(concordance, low, high)), 1e-6))
        return inside if concordance <= high else inside * max(1 - concordance, 1e-6) / (1 - high)

    def _simulate(
        self,
        rng: np.random.Generator,
        strength: float,
        times: NDArray[np.float64],
        events: NDArray[np.int64],
        survival: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return the C-index of each resample, centred and scaled to all cases where fewer are drawn."""
        size = min(len(times), _MOST_CASES)
        found = np.empty(_DRAWS)
        for number in range(_DRAWS):
            drawn = rng.integers(len(times), size=size)
            happened = events[drawn].astype(bool)
            left = survival[drawn] * np.where(happened, 1, rng.random(size))
            score = norm.ppf(np.clip(left, 1 / (4 * len(times)), 1 - 1 / (4 * len(times))))
            risk = strength * score + rng.standard_normal(size)
            found[number] = Concordance(risk, times[drawn], events[drawn])(np.ones(size, int))
        mean = np.nanmean(found)
        scaled: NDArray[np.float64] = mean + (found - mean) * np.sqrt(size / len(times))
        return scaled
