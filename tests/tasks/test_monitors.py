"""What is chosen and stopped by gets better the way that the metric says, and is defined."""

import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import ABMIL
from e2e_abmilx.tasks import BagTask, ClassificationTask, CoxTask, MultiLabelTask, SurvivalTask

TASKS = {
    ClassificationTask: {"val/auc": "max", "val/ece": "min", "val/qwk": "max", "val/balanced_accuracy": "max"},
    MultiLabelTask: {"val/auc": "max", "val/f1": "max", "val/average_precision": "max", "val/accuracy": "max"},
    SurvivalTask: {"val/c_index": "max"},
}  # fmt: skip


def _task(kind: type[BagTask]) -> BagTask:
    return kind(Precomputed(4), ABMIL, 1 if kind is CoxTask else 3)


@pytest.mark.parametrize("kind", TASKS)
def test_modes_are_the_metrics_own(kind: type[BagTask]) -> None:
    monitors = _task(kind).monitors()
    for name, mode in {**TASKS[kind], "val/loss": "min", "train/loss_epoch": "min"}.items():
        assert monitors.mode_of(name, None) == mode
        assert monitors.mode_of(name, mode) == mode
        with pytest.raises(InputError, match=f"set mode: {mode}"):
            monitors.mode_of(name, "min" if mode == "max" else "max")


def test_all_metrics_say_which_way_they_get_better() -> None:
    for kind in TASKS:
        for name, metric in _task(kind).val_metrics.items():
            assert metric.higher_is_better is not None, name


def test_a_tasks_own_mode_is_obeyed() -> None:
    class Least(ClassificationTask):
        monitor, mode = "val/my_cost", "min"

    assert _task(Least).monitors().mode_of("val/my_cost", None) == "min"


def test_neither_way() -> None:
    monitors = _task(ClassificationTask).monitors()
    assert monitors.mode_of("val/effective_number_of_patches", "max") == "max"
    with pytest.raises(InputError, match="set mode to max or min"):
        monitors.mode_of("val/effective_number_of_patches", None)


def test_mistyped_names_are_found() -> None:
    with pytest.raises(InputError, match=r"no metric 'val/acu' \(is it val/auc\?\)"):
        _task(ClassificationTask).monitors().mode_of("val/acu", "max")
    with pytest.raises(InputError, match="no metric 'val/loss'"):
        _task(CoxTask).monitors().mode_of("val/loss", None)  # a partial likelihood of one case means nothing


@pytest.mark.parametrize(
    "callback",
    [
        EarlyStopping("val/auc"),  # Lightning's mode is min, unless it is stated
        ModelCheckpoint(monitor="val/loss", mode="max"),
        ModelCheckpoint(monitor="val/auk", mode="max"),
    ],
)
def test_other_peoples_callbacks_are_looked_at(callback: EarlyStopping | ModelCheckpoint) -> None:
    with pytest.raises(InputError, match=f"^{type(callback).__name__}: "):
        _task(ClassificationTask).monitors().check([callback], lambda name: None)


def test_right_ones_pass() -> None:
    right = [EarlyStopping("val/loss"), ModelCheckpoint(monitor="val/auc", mode="max"), ModelCheckpoint()]
    _task(ClassificationTask).monitors().check(right, lambda name: None)
