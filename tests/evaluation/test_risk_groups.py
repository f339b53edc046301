import math

import numpy as np
import pytest
from lifelines.datasets import load_waltons

from e2e_abmilx.evaluation.risk_groups import kaplan_meier, stratify_by_risk
from e2e_abmilx.evaluation.thresholds import Threshold, fit_median_threshold


def _product_limit(time: list[float], event: list[int], t: float) -> float:
    survival = 1.0
    for moment in sorted({own for own, happened in zip(time, event, strict=True) if happened and own <= t}):
        deaths = sum(own == moment and happened for own, happened in zip(time, event, strict=True))
        survival *= 1 - deaths / sum(own >= moment for own in time)
    return survival


def test_kaplan_meier_is_the_product_limit() -> None:
    generator = np.random.default_rng(0)
    time, event = generator.integers(1, 20, 40).astype(float), generator.integers(0, 2, 40)
    curve = kaplan_meier(time, event)
    wanted = [_product_limit(time.tolist(), event.tolist(), t) for t in curve.time]
    np.testing.assert_allclose(curve.survival, wanted)
    assert curve.time[0] == 0
    assert (curve.low <= curve.survival).all()
    assert (curve.survival <= curve.high).all()
    np.testing.assert_array_equal(curve.at_risk[1:], [(time >= t).sum() for t in curve.time[1:]])


def test_log_rank_p_of_a_known_trial() -> None:
    """lifelines' own example; its documentation gives χ² = 122.25 on one degree of freedom."""
    table = load_waltons()
    risk = (table["group"] == "miR-137").to_numpy().astype(float)
    groups = stratify_by_risk(risk, table["T"], table["E"], Threshold(0.5, "train"))
    assert groups.p_value == pytest.approx(math.erfc(math.sqrt(122.25 / 2)), rel=0.01)
    assert groups.low.at_risk[0] == (risk == 0).sum()
    assert groups.high.at_risk[0] == (risk == 1).sum()


def test_groups_are_divided_at_the_training_median() -> None:
    training, risk = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 5.0, 6.0, 7.0])
    groups = stratify_by_risk(risk, [9.0, 3.0, 2.0, 1.0], [1, 1, 1, 1], fit_median_threshold(training, split="train"))
    assert groups.low.at_risk[0] == 1
    assert groups.high.at_risk[0] == 3


@pytest.mark.parametrize(
    ("risk", "event"), [([2.0, 3.0], [1, 1]), ([0.0, 2.0], [0, 0])], ids=["one group empty", "all censored"]
)
def test_p_is_nan_without_two_groups_or_events(risk: list[float], event: list[int]) -> None:
    groups = stratify_by_risk(risk, [4.0, 5.0], event, Threshold(1.0, "val"))
    assert math.isnan(groups.p_value)
    assert len(groups.low.time) == 0 if min(risk) > 1 else (groups.low.survival == 1).all()
