import numpy as np
import pandas as pd
import pytest
import torch
from hand_written import classified, multi_labelled, regressed, survived
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_auroc,
    binary_f1_score,
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_calibration_error,
    multiclass_cohen_kappa,
    multiclass_f1_score,
    multilabel_accuracy,
)

from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import ABMIL
from e2e_abmilx.metrics import concordance_index
from e2e_abmilx.reports.measures import measures_of, refuse_unknown_measure
from e2e_abmilx.tasks import MultiLabelTask, RegressionTask

CASES = [f"case-{number:03d}" for number in range(60)]


def _values(predictions: pd.DataFrame) -> dict[str, float]:
    every_case = np.ones(len(predictions), dtype=np.int64)
    return {name: one.estimator(predictions)(every_case) for name, one in measures_of(predictions).items()}


@pytest.mark.parametrize("classes", [["0", "1"], ["benign", "in situ", "invasive"]])
def test_classification_equals_torchmetrics(classes: list[str]) -> None:
    table = classified(CASES, classes, seed=0).assign(threshold=np.nan)
    probability = torch.tensor(table.filter(like="probability_").to_numpy())
    label = torch.tensor([classes.index(name) for name in table["label"]])
    k = len(classes)
    assert _values(table) == pytest.approx(
        {
            "auc": float(multiclass_auroc(probability, label, k)),
            "accuracy": float(multiclass_accuracy(probability, label, k, average="micro")),
            "balanced_accuracy": float(multiclass_accuracy(probability, label, k, average="macro")),
            "f1": float(multiclass_f1_score(probability, label, k, average="macro")),
            "kappa": float(multiclass_cohen_kappa(probability, label, k)),
            "qwk": float(multiclass_cohen_kappa(probability, label, k, weights="quadratic")),
            "ece": float(multiclass_calibration_error(probability, label, k, n_bins=15)),
        },
        abs=1e-6,
    )


def test_survival_equals_the_metric_of_training() -> None:
    table = survived(CASES, seed=0)
    columns = [torch.tensor(table[name]) for name in ("risk", "time", "event")]
    assert _values(table) == pytest.approx({"c_index": concordance_index(*columns)})


def test_regression_equals_the_metrics_of_training() -> None:
    table = regressed(CASES, seed=0)
    predicted, value = (torch.tensor(table[name].to_numpy()) for name in ("predicted_value", "value"))
    metrics = RegressionTask(Precomputed(3), ABMIL, 1).configure_metrics()
    metrics.update(predicted, value)
    expected = {name: float(number) for name, number in metrics.compute().items()}
    assert list(measures_of(table)) == ["r2", "pearson", "spearman", "mae"]
    assert _values(table) == pytest.approx(expected, rel=1e-6)


def test_each_case_is_judged_by_the_threshold_of_its_run() -> None:
    table = pd.DataFrame(
        {
            "label": ["no", "no", "yes", "yes", "yes"],
            "probability_no": [0.7, 0.3, 0.6, 0.6, 0.2],
            "probability_yes": [0.3, 0.7, 0.4, 0.4, 0.8],
            "threshold": [0.5, 0.9, 0.3, 0.5, 0.8],
        }
    )
    values = _values(table)
    assert (values["sensitivity"], values["specificity"]) == (pytest.approx(2 / 3), 1.0)


def test_sensitivity_needs_two_classes_and_a_threshold_for_every_case() -> None:
    two = classified(CASES, ["0", "1"], seed=0).assign(threshold=[0.5] * 59 + [np.nan])
    three = classified(CASES, ["0", "1", "2"], seed=0).assign(threshold=0.5)
    for table in (two, three):
        assert "sensitivity" not in measures_of(table)


def _labels(table: pd.DataFrame) -> tuple[torch.Tensor, torch.Tensor]:
    label = table.filter(like="label_").astype("float64").fillna(-1).to_numpy()
    return torch.tensor(table.filter(like="probability_").to_numpy()), torch.tensor(label).long()


def test_several_labels_equal_torchmetrics_class_by_class() -> None:
    table = multi_labelled(CASES, ["ER", "PR", "HER2"], seed=0)
    probability, label = _labels(table)
    assert (label < 0).any()
    known = [(probability[label[:, k] >= 0, k], label[label[:, k] >= 0, k]) for k in range(3)]
    aucs = [float(binary_auroc(*one)) for one in known]
    assert _values(table.astype({name: float for name in table if name.startswith("label_")})) == pytest.approx(
        {
            "auc": np.mean(aucs),
            "accuracy": float(multilabel_accuracy(probability, label, 3, average="micro", ignore_index=-1)),
            "balanced_accuracy": np.mean([float(binary_accuracy(*one)) for one in known]),
            "f1": np.mean([float(binary_f1_score(*one)) for one in known]),
            **dict(zip(["auc_ER", "auc_PR", "auc_HER2"], aucs, strict=True)),
        },
        abs=1e-6,
    )


def test_weighting_several_labels_equals_repeating_rows() -> None:
    table = multi_labelled(CASES, ["ER", "PR"], seed=0).astype({"label_ER": float, "label_PR": float})
    weight = np.random.default_rng(0).integers(0, 4, len(table))
    repeated = table.loc[table.index.repeat(weight)]
    weighted = {name: one.estimator(table)(weight) for name, one in measures_of(table).items()}
    assert weighted == pytest.approx(_values(repeated))


@pytest.mark.parametrize("absent", [np.nan, 0.0, 1.0])
def test_a_label_without_both_values_is_left_out_of_the_mean(absent: float) -> None:
    """As in ``metrics.csv``."""
    table = multi_labelled(CASES, ["ER", "PR"], seed=0).astype({"label_ER": float, "label_PR": float})
    table = table.assign(label_PR=absent)
    values = _values(table)
    alone = _values(table[["label_ER", "probability_ER"]])
    assert np.isnan(values["auc_PR"])
    for name, metric in MultiLabelTask(Precomputed(3), ABMIL, 2).configure_metrics().items():
        if name in ("auc", "balanced_accuracy", "f1"):
            assert values[name] == alone[name]
            labels = torch.from_numpy(table[["label_ER", "label_PR"]].fillna(-1).to_numpy()).long()
            metric.update(torch.from_numpy(table[["probability_ER", "probability_PR"]].to_numpy()), labels)
            assert float(metric.compute()) == pytest.approx(values[name], abs=1e-6)
    nothing = _values(table.assign(label_ER=1.0))
    assert all(np.isnan(nothing[name]) for name in ("auc", "balanced_accuracy", "f1"))
    assert 0 < values["accuracy"] < 1
    assert set(_values(table[["label_ER", "probability_ER"]])) == {"auc", "accuracy", "balanced_accuracy", "f1"}


@pytest.mark.parametrize("name", ["auc", "qwk", "sensitivity", "c_index", "brier", "r2", "auc_tumour"])
def test_measures_of_some_task_are_known(name: str) -> None:
    refuse_unknown_measure(name)


def test_other_measures_are_refused() -> None:
    with pytest.raises(InputError, match=r"measure is kqw, which no task has; name one of auc, .*c_index.*mae"):
        refuse_unknown_measure("kqw")
