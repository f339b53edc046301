import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_recall, binary_specificity

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.estimators import Sensitivity, Specificity
from e2e_abmilx.evaluation.thresholds import (
    Threshold,
    fit_median_threshold,
    fit_sensitivity_threshold,
    fit_youden_threshold,
)

rows = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1)), min_size=2, max_size=20)


def _rates(score: np.ndarray, label: np.ndarray, value: float) -> tuple[float, float]:
    """Return sensitivity and specificity at a threshold."""
    positive = score >= value
    return positive[label == 1].mean(), (~positive)[label == 0].mean()


@given(rows)
def test_youden_threshold_is_the_best_of_all(cases: list[tuple[int, int]]) -> None:
    score, label = (np.array(column) for column in zip(*cases, strict=True))
    assume(0 < label.sum() < len(label))
    threshold = fit_youden_threshold(score / 8, label, split="val")
    youden = [sum(_rates(score, label, value)) for value in range(10)]
    # the lowest score that is positive, by trying all of them
    lowest = min(value for value in score if youden[value] > max(youden) - 1e-12)
    assert _rates(score / 8, label, threshold.value) == _rates(score, label, lowest)
    below = score[score < lowest]
    assert threshold.value * 8 == pytest.approx((lowest + below.max()) / 2 if len(below) else lowest)
    assert (threshold.cases, threshold.rule) == (len(cases), "highest Youden index")


@given(rows, st.integers(1, 20).flatmap(lambda whole: st.integers(1, whole).map(lambda part: part / whole)))
def test_sensitivity_threshold_is_the_highest_that_suffices(cases: list[tuple[int, int]], stated: float) -> None:
    score, label = (np.array(column) for column in zip(*cases, strict=True))
    assume(0 < label.sum() < len(label))
    threshold = fit_sensitivity_threshold(score / 8, label, stated, split="val")
    lowest = max(value for value in score if _rates(score, label, value)[0] >= stated)
    assert _rates(score / 8, label, threshold.value) == _rates(score, label, lowest)
    below = score[score < lowest]
    assert threshold.value * 8 == pytest.approx((lowest + below.max()) / 2 if len(below) else lowest)
    assert (threshold.cases, threshold.rule) == (len(cases), f"sensitivity of at least {stated}")


def test_the_threshold_of_separable_scores_is_the_middle_of_the_gap() -> None:
    score, label = [0.05, 0.1, 0.9, 0.97], [0, 0, 1, 1]
    assert fit_youden_threshold(score, label, split="val").value == pytest.approx(0.5)
    assert fit_sensitivity_threshold(score, label, 1.0, split="val").value == pytest.approx(0.5)
    assert fit_sensitivity_threshold(score, label, 0.5, split="val").value == pytest.approx(0.935)


def test_the_lowest_score_is_the_threshold_if_all_cases_are_positive() -> None:
    assert fit_youden_threshold([0.4, 0.3], [0, 1], split="val").value == 0.3
    assert fit_sensitivity_threshold([0.4, 0.3], [0, 1], 0.95, split="val").value == 0.3


@given(st.floats(0, 1, width=32))
def test_neighbours_in_float32_stay_on_their_sides(lower: float) -> None:
    """The test logs the threshold in float32, and reports decide by the logged value."""
    upper = np.nextafter(np.float32(lower), np.float32(2))
    score = np.array([lower, upper], np.float32)
    for value in (
        fit_youden_threshold(score, [0, 1], split="val").value,
        fit_sensitivity_threshold(score, [0, 1], 1.0, split="val").value,
    ):
        assert lower < value <= upper
        assert np.float32(value) == value


@pytest.mark.parametrize("stated", [0, -0.5, 1.2, 95, float("nan")])
def test_a_sensitivity_outside_its_range_is_refused(stated: float) -> None:
    with pytest.raises(InputError, match=rf"sensitivity is {stated}; it is a fraction and must lie in \(0, 1\]"):
        fit_sensitivity_threshold([0.2, 0.7], [0, 1], stated, split="val")


def test_a_threshold_of_an_earlier_release_has_no_rule() -> None:
    assert Threshold(**json.loads('{"value": 0.5, "split": "val"}')) == Threshold(0.5, "val", cases=0, rule="")


def test_sensitivity_and_specificity_against_torchmetrics() -> None:
    torch.manual_seed(0)
    score, label = torch.rand(60).round(decimals=1), torch.randint(0, 2, (60,))
    threshold = fit_youden_threshold(score[:30], label[:30], split="val")
    once = np.ones(30, dtype=np.int64)
    # torchmetrics counts scores above a threshold as positive, we those at or above it
    just_below = float(np.nextafter(np.float32(threshold.value), np.float32(0)))
    found = Sensitivity(score[30:], label[30:], threshold)(once)
    assert found == pytest.approx(binary_recall(score[30:], label[30:], just_below).item())
    found = Specificity(score[30:], label[30:], threshold)(once)
    assert found == pytest.approx(binary_specificity(score[30:], label[30:], just_below).item())


def test_sensitivity_without_positives_is_nan() -> None:
    threshold, once = Threshold(0.5, "val"), np.ones(2, dtype=np.int64)
    assert np.isnan(Sensitivity([0.2, 0.7], [0, 0], threshold)(once))
    assert Specificity([0.2, 0.7], [0, 0], threshold)(once) == 0.5


def test_median_divides_cases_into_halves() -> None:
    risk = np.arange(10.0)
    threshold = fit_median_threshold(risk, split="train")
    assert threshold.reached(risk).sum() == 5
    assert (threshold.cases, threshold.rule) == (10, "median risk")


def test_threshold_fitted_on_test_is_refused() -> None:
    """Every way to create a threshold refuses the test split."""
    with pytest.raises(InputError, match=r"fitted on the split 'test'.*fit it on train or val"):
        fit_youden_threshold([0.2, 0.7], [0, 1], split="test")
    with pytest.raises(InputError, match="fitted on the split 'test'"):
        fit_median_threshold([0.2, 0.7], split="test")
    with pytest.raises(InputError, match="fitted on the split 'test'"):
        fit_sensitivity_threshold([0.2, 0.7], [0, 1], 0.9, split="test")
    with pytest.raises(InputError, match="fitted on the split 'test'"):
        Threshold(**json.loads('{"value": 0.5, "split": "test"}'))


def test_both_classes_are_needed() -> None:
    with pytest.raises(InputError, match="all 2 val cases are of class 1; a threshold needs cases of both"):
        fit_youden_threshold([0.2, 0.7], [1, 1], split="val")
    with pytest.raises(InputError, match="all 2 val cases are of class 0; a threshold needs cases of both"):
        fit_sensitivity_threshold([0.2, 0.7], [0, 0], 0.9, split="val")


def test_an_unknown_label_is_named_in_the_error() -> None:
    with pytest.raises(InputError, match="-1 is not a class: labels are 0 … 1"):
        fit_youden_threshold([0.2, 0.7], [-1, 1], split="val")
