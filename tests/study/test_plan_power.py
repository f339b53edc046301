from pathlib import Path

import pytest
from plans import write_features

from e2e_abmilx.evaluation.power import auc_std
from e2e_abmilx.study.plan_cohort import read_planned_cohort
from e2e_abmilx.study.plan_config import read_config
from e2e_abmilx.study.plan_power import PowerRow, describe_power, plan_power


def _rows(words: list[str]) -> list[PowerRow]:
    config = read_config(words)
    return plan_power(config.data, read_planned_cohort(config.data))


def test_classes_of_the_test_split_and_of_all_folds(tmp_path: Path) -> None:
    words = [*write_features(tmp_path, cases=48), "--data.columns.split=null", "--data.fold=0", "--data.folds=4"]
    test, everyone = _rows(words)
    assert (test.cases, test.measure, test.counts) == ("test", "AUC of b", {"positives": 6, "negatives": 6})
    assert (everyone.cases, everyone.counts) == ("all folds", {"positives": 24, "negatives": 24})
    assert everyone.half_width == pytest.approx(1.96 * auc_std(0.8, 24, 24), rel=1e-3)
    assert everyone.half_width == pytest.approx(test.half_width / 2, rel=0.1)
    assert 0.1 < everyone.difference < 0.2
    assert describe_power([test])[0]["difference"] is None  # twelve cases show nothing


def test_survival_and_regression(tmp_path: Path) -> None:
    words = write_features(tmp_path, cases=80)
    survival = [*words, "--data.target=survival", "--data.time_bins=2"]
    (row,) = _rows(survival)
    assert (row.measure, row.counts) == ("C-index", {"cases": 20, "events": 10})
    assert 0.1 < row.half_width < 0.4
    regression = ["--data.target=regression", "--data.columns.label=time", "--model=RegressionTask"]
    kept = [word for word in words if not word.startswith(("--model=", "--model.num_outputs"))]
    (row,) = _rows([*kept[:4], *regression, "--model.num_outputs=1", *kept[4:]])
    assert (row.measure, row.counts) == ("correlation", {"cases": 20})
    assert row.half_width == pytest.approx(0.36, abs=0.03)  # artanh 0.5 ± 1.96/√17
    assert 0 < row.difference < 0.5


def test_a_split_with_one_class_has_no_auc(tmp_path: Path) -> None:
    words = write_features(tmp_path)
    table = (tmp_path / "labels.csv").read_text().replace("c7,s7,b,17.5,1,test", "c7,s7,b,17.5,1,train")
    (tmp_path / "labels.csv").write_text(table)
    (row,) = _rows(words)
    assert row.counts == {"positives": 0, "negatives": 1}
    assert describe_power([row])[0]["half_width"] is None
