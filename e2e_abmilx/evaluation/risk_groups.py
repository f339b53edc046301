"""Survival of cases at low and at high risk: Kaplan–Meier curves and the log-rank test."""

from typing import NamedTuple

import numpy as np
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.evaluation.columns import aligned
from e2e_abmilx.evaluation.thresholds import Threshold


class SurvivalCurve(NamedTuple):
    """Kaplan–Meier estimate, a step at each of m times; empty without a case.

    Attributes:
        time: Months, from 0 on, shape ``(m,)``.
        survival: Share that survives each time, shape ``(m,)``.
        low: Lower end of the 95 % interval (exponential Greenwood), shape ``(m,)``.
        high: Upper end of the 95 % interval, shape ``(m,)``.
        at_risk: Cases under observation just before each time, shape ``(m,)``.
    """

    time: NDArray[np.float64]
    survival: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    at_risk: NDArray[np.int64]


class RiskGroups(NamedTuple):
    """Two groups of cases.

    Attributes:
        low: Survival of the cases below the threshold.
        high: Survival of the cases from the threshold on.
        p_value: Of the log-rank test; NaN where a group is empty or no event happened.
    """

    low: SurvivalCurve
    high: SurvivalCurve
    p_value: float


def compare_risk_groups(
    risk: ArrayLike, time: ArrayLike, event: ArrayLike, threshold: Threshold
) -> RiskGroups:
    """Part cases at a threshold and compare the survival of the two groups.

    Args:
        risk: Higher means an earlier event, shape ``(n,)``.
        time: Months until the event or the censoring, shape ``(n,)``.
        event: 1 where the event happened, 0 where it was censored, shape ``(n,)``.
        threshold: Such as the median of the training risks.

    Raises:
        InputError: If the columns differ in length or hold NaN.
    """
    risks, times, events = aligned(risk=risk, time=time, event=event)
    high = threshold.reached(risks)
    p_value = np.nan
    if events.any() and high.any() and not high.all():
        p_value = float(logrank_test(times[~high], times[high], events[~high], events[high]).p_value)
    return RiskGroups(
        kaplan_meier(times[~high], events[~high]), kaplan_meier(times[high], events[high]), p_value
    )


def kaplan_meier(time: NDArray[np.float64], event: NDArray[np.int64]) -> SurvivalCurve:
    """Estimate survival.

    Args:
        time: Months until the event or the censoring, shape ``(n,)``.
        event: 1 where the event happened, 0 where it was censored, shape ``(n,)``.
    """
    if not len(time):
        nothing = np.empty(0)
        return SurvivalCurve(nothing, nothing, nothing, nothing, nothing.astype(np.int64))
    fitter = KaplanMeierFitter().fit(time, event)
    low, high = fitter.confidence_interval_survival_function_.to_numpy().T
    survival = fitter.survival_function_["KM_estimate"]
    return SurvivalCurve(
        survival.index.to_numpy(),
        survival.to_numpy(),
        low,
        high,
        fitter.event_table["at_risk"].to_numpy(),
    )
