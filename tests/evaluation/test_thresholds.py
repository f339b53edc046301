import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_recall, binary_specificity

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.estimators import Sensitivity, Specificity
from e2e_abmilx.evaluation.thresholds import Threshold, fit_median_threshold, fit_youden_threshold

rows = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1)), min_size=2, max_size=20)


@given(rows)
def test_youden_threshold_is_the_best_of_all(cases: list[tuple[int, int]]) -> None:
    score, label = (np.array(column) for column in zip(*cases, strict=True))
    assume(0 < label.sum() < len(label))

    def youden(value: float) -> float:
        positive = score >= value
        return (positive & (label == 1)).sum() / label.sum() - (positive & (label == 0)).sum() / (1 - label).sum()

    threshold = fit_youden_threshold(score / 8, label, split="val")
    best = max(map(youden, range(10)))
    assert youden(threshold.value * 8) == pytest.approx(best)
    assert all(youden(value) < best - 1e-12 for value in score if value < threshold.value * 8)


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
    assert fit_median_threshold(risk, split="train").reached(risk).sum() == 5


def test_threshold_fitted_on_test_is_refused() -> None:
    """Every way to create a threshold refuses the test split."""
    with pytest.raises(InputError, match=r"fitted on the split 'test'.*fit it on train or val"):
        fit_youden_threshold([0.2, 0.7], [0, 1], split="test")
    with pytest.raises(InputError, match="fitted on the split 'test'"):
        fit_median_threshold([0.2, 0.7], split="test")
    with pytest.raises(InputError, match="fitted on the split 'test'"):
        Threshold(**json.loads('{"value": 0.5, "split": "test"}'))


def test_youden_needs_both_classes() -> None:
    with pytest.raises(InputError, match="all 2 val cases are of class 1; a threshold needs cases of both"):
        fit_youden_threshold([0.2, 0.7], [1, 1], split="val")


def test_an_unknown_label_is_named_in_the_error() -> None:
    with pytest.raises(InputError, match="-1 is not a class: labels are 0 … 1"):
        fit_youden_threshold([0.2, 0.7], [-1, 1], split="val")
