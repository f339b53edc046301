"""The prediction of a case, against means and deviations written out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from e2e_abmilx.data.contract import InputContract
from e2e_abmilx.evaluation.thresholds import Threshold
from e2e_abmilx.models.predictions import AttendedPatches, CasePrediction, mean_threshold

PATCHES = AttendedPatches(np.array(["s"]), np.zeros((1, 2), np.int64), np.zeros(1, np.int64), np.ones((1, 1), "f4"))


def prediction(*members: dict[str, float], threshold: float | None = None) -> CasePrediction:
    return CasePrediction("c", {"label": "b"}, members, threshold, PATCHES)


def two_classes(second: float) -> dict[str, float]:
    return {"probability_a": 1 - second, "probability_b": second}


def test_one_model() -> None:
    one = prediction(two_classes(0.75), threshold=0.75)
    assert one.probabilities == {"a": 0.25, "b": 0.75}
    assert one.std == {"probability_a": 0, "probability_b": 0}
    assert (one.label, one.risk, one.value, one.survival) == ("b", None, None, {})
    assert one.row() == {
        "case": "c", "label": "b", "probability_a": 0.25, "probability_b": 0.75, "predicted": "b", "threshold": 0.75,
        "reaches_threshold": "yes",
    }  # fmt: skip


def test_several_models_state_their_spread() -> None:
    row = prediction(two_classes(0.2), two_classes(0.3), two_classes(0.7), threshold=0.41).row()
    assert row["probability_b"] == pytest.approx(0.4)
    assert row["std_probability_b"] == pytest.approx(math.sqrt((0.2**2 + 0.1**2 + 0.3**2) / 2))
    assert (row["min_probability_b"], row["max_probability_b"]) == (0.2, 0.7)
    assert (row["predicted"], row["reaches_threshold"]) == ("a", "no")


def test_models_with_other_time_edges_share_only_their_risk() -> None:
    one = {"survival_12": 0.9, "survival_30": 0.5, "risk": -1.4}
    other = {"survival_12": 0.7, "survival_40": 0.4, "risk": -1.0}
    both = prediction(one, other, threshold=-1.3)
    assert both.survival == {12.0: pytest.approx(0.8)}
    assert both.risk == pytest.approx(-1.2)
    assert both.reaches_threshold  # by the risk, which is the last score
    assert not {"survival_30", "survival_40", "std_survival_40"} & set(both.row())
    assert prediction({"survival_30": 0.5, "risk": 2.0}, other).scores == {"risk": 0.5}
    assert prediction({"survival_30": 0.5, "risk": 2.0}, other).label is None


def test_a_regression_has_a_value() -> None:
    one = prediction({"predicted_value": 3.0}, {"predicted_value": 4.0})
    assert (one.value, one.label, one.reaches_threshold) == (3.5, None, None)
    assert "predicted" not in one.row()


def test_of_several_labels_none_is_the_predicted_one() -> None:
    truth = {"label_ER": "1", "label_PR": ""}
    one = CasePrediction("c", truth, ({"probability_ER": 0.9, "probability_PR": 0.8},), None, PATCHES)
    assert one.label is None
    assert one.row() == {"case": "c", **truth, "probability_ER": 0.9, "probability_PR": 0.8}


def test_the_mean_threshold() -> None:
    contract = InputContract("label", ("a", "b"))
    contracts = [replace(contract, threshold=Threshold(value, split="val")) for value in (0.2, 0.5)]
    assert mean_threshold(contracts) == pytest.approx(0.35)
    assert mean_threshold(contracts[:1]) == 0.2
    assert mean_threshold([*contracts, contract]) is None
