import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import bootstrap
from e2e_abmilx.evaluation.recalibration import EPSILON, CalibrationIntercept, CalibrationSlope, log_odds

ONCE = np.ones(200, dtype=np.int64)


def _simulate(
    n: int, *, slope: float = 1, intercept: float = 0, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return predictions and labels whose true log odds are intercept + slope × the predicted ones."""
    generator = np.random.default_rng(seed)
    odds = generator.normal(0, 2, n)
    return expit(odds), (generator.random(n) < expit(intercept + slope * odds)).astype(int)


@pytest.mark.parametrize("seed", range(3))
def test_slope_and_intercept_equal_the_maximum_of_the_likelihood(seed: int) -> None:
    probability, label = _simulate(200, slope=0.7, intercept=-0.4, seed=seed)
    odds = logit(probability)

    def loss(intercept: float, slope: float) -> float:
        return float(
            -np.log(np.where(label == 1, *(expit(sign * (intercept + slope * odds)) for sign in (1, -1)))).sum()
        )

    both = minimize(lambda at: loss(*at), [0.0, 1.0], tol=1e-10).x
    alone = minimize(lambda at: loss(at[0], 1.0), [0.0], tol=1e-10).x
    assert CalibrationSlope(probability, label)(ONCE) == pytest.approx(both[1], abs=1e-4)
    assert CalibrationIntercept(probability, label)(ONCE) == pytest.approx(alone[0], abs=1e-4)


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.5, 0), (2, 0), (1, -1), (1, 0.7)])
def test_simulated_truth_is_found(slope: float, intercept: float) -> None:
    """A model with twice the true log odds, which is overconfident, has the slope 0.5."""
    probability, label = _simulate(100_000, slope=slope, intercept=intercept)
    once = np.ones(len(label), dtype=np.int64)
    assert CalibrationSlope(probability, label)(once) == pytest.approx(slope, rel=0.03)
    if slope == 1:
        assert CalibrationIntercept(probability, label)(once) == pytest.approx(intercept, abs=0.03)


def test_intervals_cover_the_truth() -> None:
    covered = 0
    for seed in range(40):
        probability, label = _simulate(200, slope=0.5, seed=seed)
        found = bootstrap(CalibrationSlope(probability, label), list(map(str, range(200))), n_resamples=200)
        covered += found.low <= 0.5 <= found.high
    assert 34 <= covered <= 40  # 38 expected


def test_exact_zeros_and_ones_stay_finite() -> None:
    probability, label = np.array([0.0, 1.0, 0.2, 0.7, 0.0, 1.0]), np.array([0, 1, 1, 0, 1, 1])
    once = np.ones(6, dtype=np.int64)
    np.testing.assert_allclose(log_odds(np.array([0.0, 1.0])), [logit(EPSILON), -logit(EPSILON)])
    assert np.isfinite(CalibrationSlope(probability, label)(once))
    assert np.isfinite(CalibrationIntercept(probability, label)(once))
    wrong = CalibrationIntercept(np.ones(50), np.arange(50) < 2)(np.ones(50, dtype=np.int64))
    assert wrong == pytest.approx(logit(2 / 50) + logit(EPSILON))


@pytest.mark.parametrize(
    ("probability", "label"),
    [
        ([0.1, 0.4, 0.6, 0.9], [0, 0, 1, 1]),  # separated
        ([0.1, 0.4, 0.6, 0.9], [1, 1, 0, 0]),  # in the wrong order
        ([0.1, 0.4, 0.4, 0.9], [0, 0, 1, 1]),  # but for a tie
        ([0.1, 0.4, 0.4, 0.9], [1, 1, 0, 0]),
        ([0.3, 0.3, 0.3, 0.3], [0, 0, 1, 1]),  # all equal
        ([0.1, 0.4, 0.6, 0.9], [1, 1, 1, 1]),  # one label
        ([0.1, 0.4, 0.6, 0.9], [0, 0, 0, 0]),
    ],
)
def test_undefined_slopes_are_nan(probability: list[float], label: list[int]) -> None:
    once = np.ones(4, dtype=np.int64)
    assert np.isnan(CalibrationSlope(probability, label)(once))
    assert np.isnan(CalibrationIntercept(probability, label)(once)) == (len(set(label)) == 1)


def test_separated_resamples_are_undefined() -> None:
    estimator = CalibrationSlope([0.1, 0.4, 0.6, 0.9], [0, 1, 0, 1])
    assert np.isfinite(estimator(np.array([1, 1, 1, 1])))
    assert np.isnan(estimator(np.array([2, 0, 1, 1])))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=30).filter(
        lambda rows: any(weight for *_, weight in rows)
    )
)
def test_weighting_equals_repeating_and_is_never_infinite(rows: list[tuple[float, int, int]]) -> None:
    probability, label, weight = map(np.array, zip(*rows, strict=True))
    repeated = np.repeat(probability, weight), np.repeat(label, weight)
    for estimator in (CalibrationSlope, CalibrationIntercept):
        found = estimator(probability, label)(weight)
        wanted = estimator(*repeated)(np.ones(weight.sum(), dtype=np.int64))
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6, nan_ok=True)
        assert not np.isinf(found)


def test_unknown_labels_are_refused() -> None:
    with pytest.raises(InputError, match="2 is not a class"):
        CalibrationSlope([0.5, 0.6], [1, 2])
