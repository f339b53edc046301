import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional import classification

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.estimators import (
    Accuracy,
    Auroc,
    BalancedAccuracy,
    CohenKappa,
    Estimator,
    MacroF1,
    MeanOfMeasures,
    MeanOverRuns,
    OnSubset,
    QuadraticWeightedKappa,
    RatioOfSums,
    Resampled,
)
from e2e_abmilx.metrics import BalancedAccuracy as BalancedAccuracyMetric
from e2e_abmilx.metrics import ClassAUC

CLASSES = 6


def _metric(metric: Callable[..., Tensor], **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda probability, label: metric(probability, label, num_classes=CLASSES, **options)


PAIRS: dict[str, tuple[Callable[[Tensor, Tensor], Estimator], Callable[[Tensor, Tensor], Tensor]]] = {
    "auroc": (Auroc, _metric(classification.multiclass_auroc)),
    "auroc of one class": (
        lambda probability, label: Auroc(probability[:, 1], label == 1),
        lambda probability, label: classification.binary_auroc(probability[:, 1], (label == 1).long()),
    ),
    "accuracy": (
        lambda probability, label: Accuracy(probability.argmax(1), label),
        _metric(classification.multiclass_accuracy, average="micro"),
    ),
    "balanced accuracy": (
        lambda probability, label: BalancedAccuracy(probability.argmax(1), label),
        _metric(classification.multiclass_accuracy, average="macro"),
    ),
    "macro F1": (
        lambda probability, label: MacroF1(probability.argmax(1), label),
        _metric(classification.multiclass_f1_score, average="macro"),
    ),
    "kappa": (
        lambda probability, label: CohenKappa(probability.argmax(1), label),
        _metric(classification.multiclass_cohen_kappa),
    ),
    "QWK": (
        lambda probability, label: QuadraticWeightedKappa(probability.argmax(1), label),
        _metric(classification.multiclass_cohen_kappa, weights="quadratic"),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("decimals", [1, 6], ids=["ties", "no ties"])
def test_against_torchmetrics_on_resamples(name: str, decimals: int) -> None:
    ours, theirs = PAIRS[name]
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, CLASSES, (200,), generator=generator)
    logits = torch.randn(200, CLASSES, generator=generator)
    logits[torch.arange(200), label] += 1
    probability = logits.softmax(1).round(decimals=decimals)
    estimator = ours(probability, label)
    for _ in range(10):
        drawn = torch.randint(0, 200, (200,), generator=generator)
        found = estimator(drawn.bincount(minlength=200).numpy())
        assert found == pytest.approx(theirs(probability[drawn], label[drawn]).item(), abs=2e-6)


@pytest.mark.parametrize("name", ["accuracy", "macro F1", "kappa", "QWK"])
def test_against_torchmetrics_where_classes_are_absent(name: str) -> None:
    """Classes 1 and 5 occur neither as label nor as prediction; class 3 occurs only as prediction."""
    ours, theirs = PAIRS[name]
    label = torch.tensor([0, 0, 2, 2, 4, 4])
    probability = torch.eye(CLASSES)[torch.tensor([0, 2, 2, 3, 4, 4])]
    found = ours(probability, label)(np.ones(6, dtype=np.int64))
    assert found == pytest.approx(theirs(probability, label).item(), abs=1e-6)


def test_classes_without_rows_do_not_count_in_a_mean() -> None:
    """torchmetrics counts them as 0: class 1, which is absent, in the AUC; class 3, predicted once, in both."""
    label = torch.tensor([0, 0, 2, 2, 4, 4])
    probability = torch.eye(CLASSES)[torch.tensor([0, 2, 2, 3, 4, 4])]
    once = np.ones(6, dtype=np.int64)
    assert BalancedAccuracy(probability.argmax(1), label)(once) == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert Auroc(probability, label)(once) == pytest.approx((0.75 + 0.625 + 1) / 3)
    assert Auroc(torch.eye(CLASSES)[label], label)(once) == 1  # a perfect model
    for metric, estimator in ((ClassAUC(), Auroc(probability, label)), (BalancedAccuracyMetric(CLASSES), None)):
        metric.update(probability, label)
        expected = estimator(once) if estimator else BalancedAccuracy(probability.argmax(1), label)(once)
        assert float(metric.compute()) == pytest.approx(expected)


def test_auroc_by_hand() -> None:
    once = np.ones(4, dtype=np.int64)
    assert Auroc([0.1, 0.4, 0.4, 0.9], [0, 0, 1, 1])(once) == (1 + 0.5 + 1 + 1) / 4
    assert Auroc([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1])(once) == 0
    assert Auroc([0.5, 0.5, 0.5, 0.5], [0, 0, 1, 1])(once) == 0.5


def test_undefined_is_nan() -> None:
    once = np.ones(2, dtype=np.int64)
    assert math.isnan(Auroc([0.1, 0.4], [1, 1])(once))
    assert math.isnan(Auroc([[0.1, 0.5, 0.4], [0.5, 0.1, 0.4]], [1, 1])(once))
    assert math.isnan(Auroc([[0.1, 0.5, 0.4], [0.5, 0.1, 0.4]], [0, 1])(2 * np.array([1, 0])))  # class 1 was not drawn
    assert math.isnan(CohenKappa([2, 2], [2, 2])(once))
    assert math.isnan(Accuracy([0, 1], [0, 1])(0 * once))


def test_resampled_calls_a_function_with_the_drawn_rows() -> None:
    value = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert Resampled(lambda rows: rows[:, 1].sum(), value)(np.array([3, 2])) == 3 * 2 + 2 * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Auroc([0.1, 0.2], [0, 1, 1]), "different lengths, {'probability': 2, 'label': 3}"),
        (lambda: Auroc([0.1, math.nan], [0, 1]), "1 of 2 rows of 'probability' are NaN"),
        (lambda: Auroc([0.1, 0.2], [0, 2]), "2 is not a class: labels are 0 … 1"),
        (lambda: Auroc(np.full((2, 3), 0.3), [-1, 2]), "-1 is not a class: labels are 0 … 2"),
        (lambda: CohenKappa([0, 1], [0, -1]), "-1 is not a class"),
        (lambda: Accuracy([], []), "no rows in predicted, label"),
    ],
)
def test_broken_columns_are_named_in_the_error(make: Callable[[], Estimator], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_combined_estimators() -> None:
    weight = np.array([1, 0, 2])
    values, halves = RatioOfSums([1, 2, 3], [1, 1, 1]), RatioOfSums([1, 1, 1], [2, 2, 2])
    assert values(weight) == (1 + 2 * 3) / 3
    assert OnSubset(values, np.array([False, True, True]))(weight) == 3
    assert MeanOfMeasures([values, halves], 3)(weight) == (7 / 3 + 0.5) / 2
    undefined = OnSubset(values, np.array([False, True, False]))
    assert math.isnan(MeanOfMeasures([values, undefined], 3)(weight))
    assert math.isnan(MeanOfMeasures([], 3)(weight))


def test_mean_over_runs_leaves_out_undefined_runs() -> None:
    first, second = RatioOfSums([1, 2], [1, 1]), RatioOfSums([5.0], [1])
    measure = MeanOverRuns([(first, np.array([2, 0])), (second, np.array([1]))], 3)
    assert measure(np.array([3, 1, 1])) == ((1 * 1 + 3 * 2) / 4 + 5) / 2
    assert measure(np.array([3, 0, 1])) == 7 / 4
    assert math.isnan(measure(np.array([0, 0, 0])))
