import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter, KaplanMeierFitter
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from e2e_abmilx.evaluation.survival_calibration import CoxSlope, ObservedToExpected, log_cumulative_hazard

MONTHS = 24.0


def _simulate(n: int, *, slope: float = 1, seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Return cases whose true log hazard is slope × the predicted one, with a third of them censored."""
    generator = np.random.default_rng(seed)
    score = generator.normal(size=n)
    time = generator.exponential(20 / np.exp(slope * score))
    censored = generator.exponential(40, n)
    return {"score": score, "time": np.minimum(time, censored), "event": (time <= censored).astype(float)}


def _ones(table: dict[str, NDArray[np.float64]]) -> NDArray[np.int64]:
    return np.ones(len(table["time"]), dtype=np.int64)


@pytest.mark.parametrize("seed", range(3))
def test_slope_equals_lifelines(seed: int) -> None:
    table = _simulate(150, slope=0.6, seed=seed)
    fitted = CoxPHFitter().fit(pd.DataFrame(table), "time", "event").params_["score"]
    assert CoxSlope(**table)(_ones(table)) == pytest.approx(fitted, rel=1e-4)


def test_slope_with_equal_times_is_breslows() -> None:
    table = _simulate(80)
    table["time"] = np.ceil(table["time"] / 6)

    def loss(beta: float) -> float:
        terms = [
            beta * score - np.log(np.exp(beta * table["score"][table["time"] >= time]).sum())
            for score, time, event in zip(*table.values(), strict=True)
            if event
        ]
        return -sum(terms)

    wanted = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-8}).x
    assert CoxSlope(**table)(_ones(table)) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("slope", [1, 0.5, 2])
def test_simulated_slope_is_found(slope: float) -> None:
    table = _simulate(30_000, slope=slope)
    assert CoxSlope(**table)(_ones(table)) == pytest.approx(slope, rel=0.04)


@pytest.mark.parametrize(
    ("score", "event"),
    [
        ([4.0, 3.0, 2.0, 1.0], [1, 1, 1, 1]),  # the highest risk always dies first: no maximum
        ([1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1]),
        ([1.0, 1.0, 1.0, 1.0], [1, 1, 1, 1]),
        ([1.0, 3.0, 2.0, 4.0], [0, 0, 0, 0]),
        ([1.0, 3.0, 2.0, 4.0], [0, 0, 0, 1]),
    ],
)
def test_undefined_slopes_are_nan(score: list[float], event: list[int]) -> None:
    assert np.isnan(CoxSlope(score, [1.0, 2.0, 3.0, 4.0], event)(np.ones(4, dtype=np.int64)))


def test_survival_of_zero_or_one_stays_finite() -> None:
    assert np.isfinite(log_cumulative_hazard([0.0, 1.0])).all()
    survival = np.random.default_rng(0).uniform(0.01, 0.99, 50)
    hazard = -np.log(survival)
    np.testing.assert_allclose(log_cumulative_hazard(survival), np.log(hazard))


def test_observed_events_equal_lifelines() -> None:
    table = _simulate(120)
    table["time"] = table["time"].round()
    survival = np.random.default_rng(0).random(120)
    for months in (0.5, 5.0, 24.0, float(table["time"].max())):
        fitter = KaplanMeierFitter().fit(table["time"], table["event"])
        wanted = (1 - fitter.predict(months)) / (1 - survival).mean()
        found = ObservedToExpected(survival, table["time"], table["event"], months)
        assert found(_ones(table)) == pytest.approx(wanted)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_simulated_ratio_is_found(factor: float) -> None:
    table = _simulate(30_000)
    hazard = np.exp(table["score"]) * MONTHS / 20 / factor  # predicted: 1 / factor times the true one
    true, predicted = 1 - np.exp(-factor * hazard).mean(), 1 - np.exp(-hazard).mean()
    estimator = ObservedToExpected(np.exp(-hazard), table["time"], table["event"], MONTHS)
    assert estimator(_ones(table)) == pytest.approx(true / predicted, rel=0.03)


def test_the_ratio_needs_follow_up_and_expected_events() -> None:
    once = np.ones(3, dtype=np.int64)
    assert np.isnan(ObservedToExpected([0.5, 0.5, 0.5], [1.0, 2.0, 3.0], [1, 1, 0], 4.0)(once))
    assert ObservedToExpected([0.5, 0.5, 0.5], [1.0, 2.0, 3.0], [1, 1, 1], 4.0)(once) == 2.0  # all are dead
    assert np.isnan(ObservedToExpected([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [1, 1, 0], 2.0)(once))
    assert ObservedToExpected([0.5, 0.5, 0.5], [1.0, 2.0, 3.0], [0, 0, 0], 2.0)(once) == 0.0


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(-3, 3), st.integers(1, 6), st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=25
    ).filter(lambda rows: any(weight for *_, weight in rows))
)
def test_weighting_equals_repeating(rows: list[tuple[int, int, int, int]]) -> None:
    score, time, event, weight = map(np.array, zip(*rows, strict=True))
    columns = [score / 3, time.astype(float), event]
    repeated = [np.repeat(column, weight) for column in columns]
    once = np.ones(weight.sum(), dtype=np.int64)
    found = CoxSlope(*columns)(weight)
    assert found == pytest.approx(CoxSlope(*repeated)(once), rel=1e-5, abs=1e-6, nan_ok=True)
    assert np.isnan(found) or abs(found) < 100
    ratios = [ObservedToExpected(1 / (1 + np.exp(one[0])), one[1], one[2], 3.0) for one in (columns, repeated)]
    assert ratios[0](weight) == pytest.approx(ratios[1](once), nan_ok=True)
