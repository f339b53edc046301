"""The estimators of values against scipy and plain definitions, on rows that are repeated as often as they are drawn."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import bootstrap, paired_bootstrap
from e2e_abmilx.evaluation.estimators import Estimator
from e2e_abmilx.evaluation.regression import MeanAbsoluteError, Pearson, RSquared, Spearman

Column = NDArray[np.float64]


def _r2(predicted: Column, value: Column) -> float:
    return float(1 - np.sum((value - predicted) ** 2) / np.sum((value - np.mean(value)) ** 2))


SLOW: dict[type[Estimator], Callable[[Column, Column], float]] = {
    Pearson: lambda predicted, value: float(scipy.stats.pearsonr(predicted, value).statistic),
    Spearman: lambda predicted, value: float(scipy.stats.spearmanr(predicted, value).statistic),
    RSquared: _r2,
    MeanAbsoluteError: lambda predicted, value: float(np.mean(np.abs(predicted - value))),
}


@st.composite
def _drawn(draw: st.DrawFn) -> tuple[Column, Column, NDArray[np.int64]]:
    """Draw columns with many ties, and how often each row is drawn."""
    rows = draw(st.integers(2, 12))
    numbers = st.integers(-3, 3).map(lambda number: number / 2 + 5)
    predicted, value = (np.array(draw(st.lists(numbers, min_size=rows, max_size=rows))) for _ in range(2))
    return predicted, value, np.array(draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)))


@pytest.mark.parametrize("kind", SLOW)
@given(columns=_drawn())
def test_a_weighted_measure_is_that_of_the_repeated_rows(
    kind: type[Estimator], columns: tuple[Column, Column, NDArray[np.int64]]
) -> None:
    predicted, value, weight = columns
    copies = np.repeat(predicted, weight), np.repeat(value, weight)
    found = kind(predicted, value)(weight)  # type: ignore[call-arg]
    differ = [len(np.unique(column)) > 1 for column in copies]
    needed = {Pearson: all(differ), Spearman: all(differ), RSquared: differ[1], MeanAbsoluteError: len(copies[0]) > 0}
    assert np.isnan(found) == (not needed[kind])
    if needed[kind]:
        assert found == pytest.approx(SLOW[kind](*copies), abs=1e-12)


@pytest.mark.parametrize("kind", [Pearson, Spearman, RSquared])
def test_a_large_offset_costs_no_precision(kind: type[Estimator]) -> None:
    random = np.random.default_rng(0)
    value = random.normal(size=200)
    predicted, once = value + 0.5 * random.normal(size=200), np.ones(200, np.int64)
    near, far = kind(predicted, value)(once), kind(predicted + 1e6, value + 1e6)(once)  # type: ignore[call-arg]
    assert far == pytest.approx(near, abs=1e-8)


@pytest.mark.parametrize("kind", SLOW)
def test_the_bootstrap_finds_the_better_model(kind: type[Estimator]) -> None:
    random = np.random.default_rng(0)
    value, noise = random.normal(size=80), random.normal(size=80)
    good, bad = kind(value + 0.2 * noise, value), kind(value + 2 * noise, value)  # type: ignore[call-arg]
    cases = [f"case-{number}" for number in range(80)]
    better = -1 if kind is MeanAbsoluteError else 1
    difference = paired_bootstrap(good, bad, cases, n_resamples=200)
    assert better * difference.estimate.point > 0
    assert difference.p_value < 0.02
    interval = bootstrap(good, cases, n_resamples=200)
    assert interval.low < interval.point < interval.high


def test_r2_of_the_mean_is_zero_and_of_worse_predictions_negative() -> None:
    value, once = np.array([1.0, 2.0, 6.0]), np.ones(3, np.int64)
    assert RSquared(np.full(3, 3.0), value)(once) == 0
    assert RSquared(np.full(3, 9.0), value)(once) < 0


def test_unknown_values_are_refused() -> None:
    with pytest.raises(InputError, match="1 of 2 rows of 'value' are NaN"):
        Spearman([1.0, 2.0], [1.0, np.nan])
