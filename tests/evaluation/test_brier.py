import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from numpy.typing import ArrayLike

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.brier import Censoring, case_brier_scores

Cases = list[tuple[int, int]]
cases = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 1)), min_size=1, max_size=12)


def _not_censored(training: Cases, t: float, *, including: bool) -> float:
    """Return G(t) or, without t, G(t-): the product over the times of censorings, with events first."""
    probability = 1.0
    for time in {time for time, event in training if not event and (time < t or (including and time == t))}:
        at_risk = sum(other > time or (other == time and not event) for other, event in training)
        probability *= 1 - sum(other == time and not event for other, event in training) / at_risk
    return probability


def _integrated(survival: ArrayLike, edges: ArrayLike, time: ArrayLike, event: ArrayLike, **settings: Any) -> float:
    return float(case_brier_scores(survival, edges, time, event, **settings).mean())


def _slow_score(survival: list[float], edges: list[int], case: tuple[int, int], training: Cases, horizon: int) -> float:
    """Return Graf's formula summed month by month; all times in these tests are whole months."""
    (own, event), total = case, 0.0
    for t in range(horizon):
        passed = [alive for alive, edge in zip(survival, edges, strict=True) if edge <= t]
        predicted = passed[-1] if passed else 1.0
        if own > t:
            total += (1 - predicted) ** 2 / _not_censored(training, t, including=True)
        elif event:
            total += predicted**2 / _not_censored(training, own, including=False)
    return total / horizon


@given(cases, cases, st.integers(1, 9), st.data())
def test_against_grafs_formula(training: Cases, held_out: Cases, horizon: int, data: st.DataObject) -> None:
    assume(_not_censored(training, horizon, including=True) > 0)
    edges = sorted(data.draw(st.sets(st.integers(0, 10), min_size=1, max_size=4)))
    probabilities = st.lists(st.floats(0, 1), min_size=len(edges), max_size=len(edges))
    survival = [sorted(data.draw(probabilities), reverse=True) for _ in held_out]
    time, event = zip(*held_out, strict=True)
    found = case_brier_scores(
        survival, edges, time, event, censoring=Censoring(*zip(*training, strict=True)), horizon=horizon
    )
    wanted = [_slow_score(row, edges, case, training, horizon) for row, case in zip(survival, held_out, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_against_scikit_survival() -> None:
    """``integrated_brier_score`` of scikit-survival 0.28 on two million times between 0.415 and 30 months."""
    training_time = [21.226, 30.756, 17.056, 11.104, 6.196, 36.793, 0.293, 44.178, 3.753, 3.002, 16.234, 9.364]
    training_event = [1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 1, 1]
    time = [31.737, 14.255, 0.415, 35.423, 12.517, 0.665, 8.798, 30.428]
    event = [0, 1, 0, 1, 0, 1, 1, 1]
    survival = [
        [0.847, 0.742, 0.64],
        [0.541, 0.508, 0.091],
        [0.871, 0.598, 0.361],
        [0.388, 0.323, 0.059],
        [0.816, 0.379, 0.15],
        [0.979, 0.605, 0.59],
        [0.676, 0.638, 0.151],
        [0.44, 0.402, 0.24],
    ]
    found = _integrated(
        survival, [10, 20, 35], time, event, censoring=Censoring(training_time, training_event), horizon=30
    )
    # the score is 0 before 0.415 months, where all cases were alive and predicted to be
    assert found * 30 / (30 - 0.415) == pytest.approx(0.2729473216852726, abs=1e-7)


def test_censoring_against_lifelines() -> None:
    """If no event and censoring share a time, G is survival with events and censorings swapped."""
    generator = np.random.default_rng(0)
    time, event = generator.random(50), generator.integers(0, 2, 50)
    asked = np.linspace(0, 1, 21)
    wanted = KaplanMeierFitter().fit(time, 1 - event).predict(asked)
    np.testing.assert_allclose(Censoring(time, event).after(asked), wanted)


def test_events_come_before_censorings() -> None:
    censoring = Censoring([5, 5, 5, 9], [1, 0, 0, 1])
    assert censoring.after(np.array([4.0, 5.0, 8.0])) == pytest.approx([1, 1 / 3, 1 / 3])
    assert censoring.from_on(np.array([5.0, 5.1])) == pytest.approx([1, 1 / 3])


def test_a_perfect_model_and_a_constant_one() -> None:
    time, event, edges = [2.0, 5.0, 8.0], [1, 1, 1], [2.0, 5.0, 8.0]
    perfect = [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    settings = {"censoring": Censoring(time, event), "horizon": 8.0}
    assert _integrated(perfect, edges, time, event, **settings) == 0
    constant = np.full((3, 1), 0.5)
    assert _integrated(constant, [1e-12], time, event, **settings) == pytest.approx(0.25)


def test_all_training_cases_censored_by_the_horizon() -> None:
    with pytest.raises(InputError, match=r"no training case is followed beyond 7.* horizon below 6\.0 months"):
        _integrated([[0.5]], [3], [4], [1], censoring=Censoring([4.0, 6.0], [1, 0]), horizon=7)


@pytest.mark.parametrize(
    ("survival", "edges", "horizon", "message"),
    [
        ([[0.9, 0.5]], [3, 4, 5], 4.0, r"shape \(1, 2\) for 3 edges"),
        ([[0.9, 0.5]], [4, 3], 4.0, r"\[4\.0, 3\.0\] do not increase"),
        ([[0.9, 0.5]], [3, 4], 0.0, r"a horizon of 0\.0 months"),
        ([[0.9, 0.5]], [3, math.inf], math.inf, "a horizon of inf months"),
        ([[math.nan, 0.5]], [3, 4], 4.0, "1 of 1 rows of 'survival' are NaN"),
    ],
)
def test_invalid_bins_and_values_are_refused(
    survival: list[list[float]], edges: list[float], horizon: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _integrated(survival, edges, [4], [1], censoring=Censoring([4.0, 6.0], [1, 1]), horizon=horizon)
