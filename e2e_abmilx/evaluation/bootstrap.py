"""Confidence intervals of a measure by the bootstrap over cases, paired differences, and differences of two cohorts."""

from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.estimators import Estimator, Weight

INTERVAL = (0.025, 0.975)  # quantiles: 95 %


class Estimate(NamedTuple):
    """A measure and its uncertainty.

    Attributes:
        point: The measure of the rows themselves.
        mean: Mean over the resamples.
        std: Standard deviation over the resamples, with n - 1.
        low: Lower end of the 95 % percentile interval.
        high: Upper end of the 95 % percentile interval.
        n_resamples: Number of resamples.
        undefined: Number of resamples that are left out because the measure is undefined there.
    """

    point: float
    mean: float
    std: float
    low: float
    high: float
    n_resamples: int
    undefined: int


class Difference(NamedTuple):
    """The first measure minus the second, and its uncertainty.

    Attributes:
        estimate: The difference.
        p_value: Two-sided, for a difference of 0: twice the fraction of resamples on the rarer side of 0, where 0 counts
            for both sides and one resample is added, so that p is never 0; NaN if no resample is defined.
    """

    estimate: Estimate
    p_value: float


class CohortEstimates(NamedTuple):
    """A measure in two independent cohorts.

    Attributes:
        first: In the first cohort.
        second: In the second cohort.
        difference: The second minus the first.
    """

    first: Estimate
    second: Estimate
    difference: Estimate


def bootstrap(estimator: Estimator, cases: Sequence[str], *, n_resamples: int = 1000, seed: int = 0) -> Estimate:
    """Resample cases with replacement; all rows of a case stay together.

    Args:
        estimator: A measure of the n rows.
        cases: Case of each row, shape ``(n,)``.
        n_resamples: Number of resamples.
        seed: The same seed and cases give the same resamples, whatever the order of the rows.

    Raises:
        InputError: If the estimator has another number of rows.
    """
    _check_rows(cases, estimator)
    return _summarise(estimator, resamples(cases, n_resamples=n_resamples, seed=seed))[0]


def paired_bootstrap(
    first: Estimator, second: Estimator, cases: Sequence[str], *, n_resamples: int = 1000, seed: int = 0
) -> Difference:
    """Compare two sets of predictions of the same cases on the same resamples.

    ``first`` and ``second`` are the same measure of either set, with the n rows in the same order. Other arguments and
    errors are those of :func:`bootstrap`.
    """
    _check_rows(cases, first, second)
    estimate, values = _summarise(
        lambda weight: first(weight) - second(weight), resamples(cases, n_resamples=n_resamples, seed=seed)
    )
    if not len(values):
        return Difference(estimate, np.nan)
    rarer = min((values <= 0).sum(), (values >= 0).sum())
    return Difference(estimate, min(1.0, 2 * float(rarer + 1) / (len(values) + 1)))


def bootstrap_two_cohorts(
    first: Estimator,
    first_cases: Sequence[str],
    second: Estimator,
    second_cases: Sequence[str],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> CohortEstimates:
    """Compare a measure of two independent cohorts, each resampled by itself.

    A resample in which the measure of either cohort is undefined is left out of the difference. Other arguments and
    errors are those of :func:`bootstrap`, whose estimates these are.
    """
    _check_rows(first_cases, first)
    _check_rows(second_cases, second)
    one = [first(weight) for weight in resamples(first_cases, n_resamples=n_resamples, seed=seed)]
    two = [second(weight) for weight in resamples(second_cases, n_resamples=n_resamples, seed=seed)]
    # one seed draws the same places in cohorts of one size, so the resamples are paired at random
    partners = 1 + np.random.default_rng(seed).permutation(n_resamples)
    change = [two[0] - one[0], *(two[partner] - value for partner, value in zip(partners, one[1:], strict=True))]
    return CohortEstimates(*(_summarise_values(values)[0] for values in (one, two, change)))


def difference_of_estimates(first: Estimate, second: Estimate) -> Estimate:
    """Return the second estimate minus the first for independent cohorts, by a normal approximation.

    The standard deviation is the root of the sum of both variances, and the interval the difference ± 1.96 of it. This
    is for estimates whose resamples are no longer at hand; it is rough for skewed measures, such as ratios.
    """
    std = float(np.hypot(first.std, second.std))
    point = second.point - first.point
    margin = NormalDist().inv_cdf(INTERVAL[1]) * std
    n_resamples, undefined = min(first.n_resamples, second.n_resamples), max(first.undefined, second.undefined)
    return Estimate(point, second.mean - first.mean, std, point - margin, point + margin, n_resamples, undefined)


def resamples(cases: Sequence[str], *, n_resamples: int, seed: int) -> Iterator[Weight]:
    """Yield all ones, for the rows themselves, then how often each resample drew each row; shape ``(n,)`` each.

    The arguments are those of :func:`bootstrap`.
    """
    names, case_of_row = np.unique(np.asarray(cases, dtype=str), return_inverse=True)
    generator = np.random.default_rng(seed)
    yield np.ones(len(case_of_row), dtype=np.int64)
    for _ in range(n_resamples):
        drawn = generator.integers(len(names), size=len(names))
        yield np.bincount(drawn, minlength=len(names))[case_of_row]


def _check_rows(cases: Sequence[str], *estimators: Estimator) -> None:
    for estimator in estimators:
        if estimator.rows != len(cases):
            raise InputError(
                f"{len(cases)} cases for the {estimator.rows} rows of {type(estimator).__name__};"
                " name the case of each row, repeating cases that have several rows"
            )


def _summarise(measure: Callable[[Weight], float], weights: Iterator[Weight]) -> tuple[Estimate, NDArray[np.float64]]:
    """Return the estimate, and the values of the resamples where the measure is defined."""
    return _summarise_values([measure(weight) for weight in weights])


def _summarise_values(measured: Sequence[float]) -> tuple[Estimate, NDArray[np.float64]]:
    """Summarise the measure of the rows themselves, then of each resample."""
    point, *drawn = measured
    values = np.array(drawn)[~np.isnan(drawn)]
    undefined = len(drawn) - len(values)
    if len(values) < 2:
        return Estimate(point, np.nan, np.nan, np.nan, np.nan, len(drawn), undefined), values
    mean, std = float(values.mean()), float(values.std(ddof=1))
    low, high = map(float, np.quantile(values, INTERVAL))
    return Estimate(point, mean, std, low, high, len(drawn), undefined), values
