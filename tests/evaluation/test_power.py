"""Power by formula agrees with simulated studies, in which every study is tested by an independent method."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from e2e_abmilx.evaluation.power import ConcordanceSpread, auc_std, correlation_std, paired_power, smallest_difference

Z = norm.ppf(0.975)


class Studies(NamedTuple):
    """Measures of two models in many simulated studies, shape (studies, 2), and how often a paired test found it."""

    measures: NDArray[np.float64]
    found: float

    @property
    def difference(self) -> float:
        return float(np.diff(self.measures.mean(axis=0))[0])

    @property
    def correlation(self) -> float:
        return float(np.corrcoef(self.measures.T)[0, 1])


def _run(study: Callable[[np.random.Generator], tuple[NDArray[np.float64], float]], count: int) -> Studies:
    rng = np.random.default_rng(0)
    results = [study(rng) for _ in range(count)]
    found = [abs(measures[1] - measures[0]) > Z * std for measures, std in results]
    return Studies(np.array([measures for measures, _ in results]), float(np.mean(found)))


def _binormal_study(
    rng: np.random.Generator, aucs: tuple[float, float], positives: int, negatives: int
) -> tuple[NDArray[np.float64], float]:
    """Return the AUCs of two models whose scores correlate by 0.6, and the std of their difference by DeLong."""
    mix = np.linalg.cholesky([[1, 0.6], [0.6, 1]]).T
    shift = np.sqrt(2) * norm.ppf(aucs)
    positive = rng.standard_normal((positives, 2)) @ mix + shift
    negative = rng.standard_normal((negatives, 2)) @ mix
    above = (positive[:, None] > negative[None]).astype(float)
    by_positive, by_negative = above.mean(axis=1), above.mean(axis=0)
    variances = [np.diff(part, axis=1).var(ddof=1) / len(part) for part in (by_positive, by_negative)]
    return above.mean(axis=(0, 1)), math.sqrt(sum(variances))


def _survival_study(
    rng: np.random.Generator, noises: tuple[float, float], cases: int
) -> tuple[NDArray[np.float64], float, NDArray[np.float64], NDArray[np.int64]]:
    """Return the C-indices of two markers of a proportional hazard, the std of their difference by the jackknife,
    and times and events."""
    hazard = 1.2 * rng.standard_normal(cases)
    time, censoring = rng.exponential(np.exp(-hazard)), rng.uniform(0, 3, cases)
    event, time = (time <= censoring).astype(int), np.minimum(time, censoring)
    marker = hazard[:, None] + rng.standard_normal((cases, 2)) * noises
    comparable = (event[:, None] == 1) & (time[:, None] < time[None])
    agreed = comparable[..., None] & (marker[:, None] > marker[None])
    index = agreed.sum(axis=(0, 1)) / comparable.sum()
    left = comparable.sum() - comparable.sum(axis=0) - comparable.sum(axis=1)
    without = (agreed.sum(axis=(0, 1)) - agreed.sum(axis=0) - agreed.sum(axis=1)) / left[:, None]
    return index, math.sqrt((cases - 1) * np.diff(without, axis=1).var()), time, event


@pytest.mark.parametrize(
    ("positives", "negatives", "aucs"),
    [(30, 70, (0.75, 0.88)), (60, 60, (0.80, 0.88)), (80, 120, (0.80, 0.86)), (40, 40, (0.7, 0.7))],
)
def test_power_of_an_auc_is_within_five_points_of_binormal_studies(
    positives: int, negatives: int, aucs: tuple[float, float]
) -> None:
    studies = _run(lambda rng: _binormal_study(rng, aucs, positives, negatives), 1000)
    stds = [auc_std(auc, positives, negatives) for auc in aucs]
    assert stds == pytest.approx(studies.measures.std(axis=0), rel=0.08)
    power = paired_power(aucs[1] - aucs[0], *stds, correlation=studies.correlation)
    assert power == pytest.approx(studies.found, abs=0.05)


@pytest.mark.parametrize(("cases", "noises"), [(80, (3.0, 0.8)), (160, (2.0, 0.9))])
def test_power_of_a_c_index_is_within_five_points_of_simulated_studies(cases: int, noises: tuple[float, float]) -> None:
    studies = _run(lambda rng: _survival_study(rng, noises, cases)[:2], 500)
    *_, time, event = _survival_study(np.random.default_rng(9), noises, cases)
    std_at = ConcordanceSpread(time, event)
    stds = [std_at(float(measure)) for measure in studies.measures.mean(axis=0)]
    assert stds == pytest.approx(studies.measures.std(axis=0), rel=0.15)
    power = paired_power(studies.difference, *stds, correlation=studies.correlation)
    assert power == pytest.approx(studies.found, abs=0.05)


def test_c_index_of_many_cases_is_simulated_on_fewer() -> None:
    rng = np.random.default_rng(1)
    time, event = rng.exponential(size=200), rng.integers(2, size=200)
    few, many = (ConcordanceSpread(np.tile(time, k), np.tile(event, k))(0.7) for k in (1, 9))
    assert many == pytest.approx(few / 3, rel=0.1)


def test_hanley_and_mcneil_example() -> None:
    # 51 abnormal and 58 normal cases: 0.032 with scores that they took as exponential (1982), a little less with normal
    assert auc_std(0.893, 51, 58) == pytest.approx(0.032, abs=0.002)
    assert math.isnan(auc_std(0.8, 0, 20))


def test_smallest_difference_has_the_power_asked_for() -> None:
    def std_at(auc: float) -> float:
        return auc_std(auc, 100, 100)

    difference = smallest_difference(std_at, 0.8)
    assert paired_power(difference, std_at(0.8), std_at(0.8 + difference)) == pytest.approx(0.8, abs=1e-3)
    assert smallest_difference(std_at, 0.8, correlation=0.8) < difference < smallest_difference(std_at, 0.8, power=0.9)
    assert math.isnan(smallest_difference(lambda auc: auc_std(auc, 3, 3), 0.8))


def test_no_difference_is_found_as_often_as_the_level() -> None:
    assert paired_power(0.0, 0.04, 0.05, alpha=0.1) == pytest.approx(0.1)


def test_spread_of_a_correlation_is_that_of_drawn_samples() -> None:
    rng = np.random.default_rng(0)
    first, noise = rng.standard_normal((2, 4000, 40))
    second = 0.6 * first + 0.8 * noise
    correlations = [np.corrcoef(pair)[0, 1] for pair in zip(first, second, strict=True)]
    assert np.std(np.arctanh(correlations)) == pytest.approx(correlation_std(40), rel=0.05)
    assert math.isnan(correlation_std(3))
