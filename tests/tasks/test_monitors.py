"""Monitored metrics exist, are defined, and have the mode in which they improve."""

from typing import Literal

import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import ABMIL
from e2e_abmilx.tasks import BagTask, ClassificationTask, CoxTask, MultiLabelTask, RegressionTask, SurvivalTask

TASKS = {
    ClassificationTask: {"val/auc": "max", "val/ece": "min", "val/qwk": "max", "val/balanced_accuracy": "max"},
    MultiLabelTask: {"val/auc": "max", "val/f1": "max", "val/average_precision": "max", "val/accuracy": "max"},
    SurvivalTask: {"val/c_index": "max"},
    RegressionTask: {"val/r2": "max", "val/pearson": "max", "val/spearman": "max", "val/mae": "min"},
}  # fmt: skip


def _task(kind: type[BagTask]) -> BagTask:
    return kind(Precomputed(4), ABMIL, 1 if kind in (CoxTask, RegressionTask) else 3)


@pytest.mark.parametrize("kind", TASKS)
def test_modes_are_those_of_the_metrics(kind: type[BagTask]) -> None:
    monitors = _task(kind).monitors()
    for name, mode in {**TASKS[kind], "val/loss": "min", "train/loss_epoch": "min"}.items():
        assert monitors.mode_of(name, None) == mode
        assert monitors.mode_of(name, mode) == mode
        with pytest.raises(InputError, match=f"set mode: {mode}"):
            monitors.mode_of(name, "min" if mode == "max" else "max")


def test_all_metrics_have_a_mode() -> None:
    for kind in TASKS:
        for name, metric in _task(kind).val_metrics.items():
            assert metric.higher_is_better is not None, name


def test_a_task_can_set_its_own_mode() -> None:
    class Least(ClassificationTask):
        monitor, mode = "val/my_cost", "min"

    assert _task(Least).monitors().mode_of("val/my_cost", None) == "min"


@pytest.mark.parametrize(("metric", "mode"), [("val/ece", "min"), ("val/loss", "min"), ("val/qwk", "max")])
def test_a_task_that_only_names_a_metric_takes_its_direction(metric: str, mode: str) -> None:
    class Other(ClassificationTask):
        monitor = metric

    assert _task(Other).monitors().mode_of(metric, None) == mode


@pytest.mark.parametrize(("metric", "mode"), [("val/ece", "max"), ("val/loss", "max"), ("val/auc", "min")])
def test_a_task_cannot_contradict_a_metric(metric: str, mode: Literal["min", "max"]) -> None:
    class Worst(ClassificationTask):
        monitor = metric

    Worst.mode = mode
    with pytest.raises(InputError, match=rf"^Worst: mode is {mode}, but a \w+ {metric} is better, .* set mode: "):
        _task(Worst).monitors()


def test_an_own_metric_needs_a_mode() -> None:
    class Unknown(ClassificationTask):
        monitor = "val/my_cost"

    with pytest.raises(InputError, match="it is not known whether a higher or a lower val/my_cost is better; set mode"):
        _task(Unknown).monitors().mode_of("val/my_cost", None)


def test_metrics_without_a_mode_need_a_stated_one() -> None:
    monitors = _task(ClassificationTask).monitors()
    assert monitors.mode_of("val/effective_number_of_patches", "max") == "max"
    with pytest.raises(InputError, match="set mode to max or min"):
        monitors.mode_of("val/effective_number_of_patches", None)


def test_mistyped_names_are_refused_with_a_suggestion() -> None:
    with pytest.raises(InputError, match=r"no metric 'val/acu' \(is it val/auc\?\)"):
        _task(ClassificationTask).monitors().mode_of("val/acu", "max")
    with pytest.raises(InputError, match="no metric 'val/loss'"):
        _task(CoxTask).monitors().mode_of("val/loss", None)  # the partial likelihood of a single case is not meaningful


@pytest.mark.parametrize(
    "callback",
    [
        EarlyStopping("val/auc"),  # Lightning's default mode is min
        ModelCheckpoint(monitor="val/loss", mode="max"),
        ModelCheckpoint(monitor="val/auk", mode="max"),
    ],
)
def test_wrong_modes_and_names_of_callbacks_are_refused(callback: EarlyStopping | ModelCheckpoint) -> None:
    with pytest.raises(InputError, match=f"^{type(callback).__name__}: "):
        _task(ClassificationTask).monitors().check([callback], lambda name: None)


def test_correct_callbacks_are_accepted() -> None:
    correct = [EarlyStopping("val/loss"), ModelCheckpoint(monitor="val/auc", mode="max"), ModelCheckpoint()]
    _task(ClassificationTask).monitors().check(correct, lambda name: None)
