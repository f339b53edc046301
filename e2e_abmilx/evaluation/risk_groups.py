"""Survival of low-risk and high-risk cases: Kaplan–Meier curves and the log-rank test."""

from typing import NamedTuple

import numpy as np
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.evaluation.columns import aligned
from e2e_abmilx.evaluation.thresholds import Threshold


class SurvivalCurve(NamedTuple):
    """Kaplan–Meier estimate with one step at each of m times; empty if there are no cases.

    Attributes:
        time: Months, starting at 0, shape ``(m,)``.
        survival: Fraction that survives each time, shape ``(m,)``.
        low: Lower end of the 95 % interval (exponential Greenwood), shape ``(m,)``.
        high: Upper end of the 95 % interval, shape ``(m,)``.
        at_risk: Number of cases under observation just before each time, shape ``(m,)``.
    """

    time: NDArray[np.float64]
    survival: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    at_risk: NDArray[np.int64]


class RiskGroups(NamedTuple):
    """Survival of two groups of cases.

    Attributes:
        low: Of the cases below the threshold.
        high: Of the cases at or above the threshold.
        p_value: Of the log-rank test; NaN if a group is empty or no event happened.
    """

    low: SurvivalCurve
    high: SurvivalCurve
    p_value: float


def stratify_by_risk(risk: ArrayLike, time: ArrayLike, event: ArrayLike, threshold: Threshold) -> RiskGroups:
    """Divide cases into two groups at a threshold, and compare their survival.

    Args:
        risk: Higher means an earlier event, shape ``(n,)``.
        time: Months until the event or the censoring, shape ``(n,)``.
        event: 1 where the event happened, 0 where the case was censored, shape ``(n,)``.
        threshold: For example the median of the training risks.

    Raises:
        InputError: If the columns differ in length or hold NaN.
    """
    risks, times, events = aligned(risk=risk, time=time, event=event)
    high = threshold.reached(risks)
    p_value = np.nan
    if events.any() and high.any() and not high.all():
        p_value = float(logrank_test(times[~high], times[high], events[~high], events[high]).p_value)
    return RiskGroups(kaplan_meier(times[~high], events[~high]), kaplan_meier(times[high], events[high]), p_value)


def kaplan_meier(time: NDArray[np.float64], event: NDArray[np.int64]) -> SurvivalCurve:
    """Estimate survival; the columns are those of :func:`stratify_by_risk`."""
    if not len(time):
        nothing = np.empty(0)
        return SurvivalCurve(nothing, nothing, nothing, nothing, np.empty(0, np.int64))
    fitter = KaplanMeierFitter().fit(time, event)
    low, high = fitter.confidence_interval_survival_function_.to_numpy().T
    survival = fitter.survival_function_["KM_estimate"]
    at_risk = fitter.event_table["at_risk"].to_numpy()
    return SurvivalCurve(survival.index.to_numpy(), survival.to_numpy(), low, high, at_risk)
