"""Names of the first release: what they are called now."""

import inspect
from pkgutil import resolve_name

import pytest

from e2e_abmilx.cohort.cohort_plan import CohortPlan
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.datamodules.base import BagDataModule
from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.heads import ABMIL
from e2e_abmilx.tasks import BagTask, ClassificationTask
from e2e_abmilx.tasks.old_names import (
    CLASS_PATHS,
    DATA_ARGUMENTS,
    METRICS,
    TASK_ARGUMENTS,
    new_class_path,
    update_hyperparameters,
)


@pytest.mark.parametrize("new", [path for path in CLASS_PATHS.values() if path.startswith("e2e_abmilx.")])
def test_every_new_class_path_is_there(new: str) -> None:
    resolve_name(new.rstrip("."))


def test_every_new_argument_is_there() -> None:
    assert set(TASK_ARGUMENTS.values()) <= set(inspect.signature(BagTask).parameters)
    options = {
        name for kind in (SlideDataModule, BagDataModule, CohortPlan) for name in inspect.signature(kind).parameters
    }
    assert set(DATA_ARGUMENTS.values()) <= options
    assert not options & set(DATA_ARGUMENTS)


def test_every_new_metric_is_logged() -> None:
    task = ClassificationTask(Precomputed(4), ABMIL, 2)
    assert {f"val/{name}" for name in METRICS.values()} <= set(task.monitors().modes)


def test_hyperparameters_are_renamed_at_any_depth() -> None:
    schedule = {"class_path": "e2e_abmilx.schedules.WarmupCosine", "init_args": {"warmup": 0.1}}
    own = {"class_path": "my_lab.heads.Head", "init_args": {"inner": dict(schedule)}}
    found = update_hyperparameters(
        {"encoder_chunk": 3, "recompute": True, "schedule": schedule, "head": own, "num_outputs": 2}
    )
    moved = {"class_path": "e2e_abmilx.tasks.schedules.WarmupCosine", "init_args": {"warmup": 0.1}}
    assert found == {
        "train_chunk_size": 3,
        "gradient_checkpointing": True,
        "schedule": moved,
        "head": {"class_path": "my_lab.heads.Head", "init_args": {"inner": moved}},
        "num_outputs": 2,
    }


@pytest.mark.parametrize("path", ["my_lab.callbacks.PatientStopping", "e2e_abmilx.heads.ABMILX", "torch.optim.AdamW"])
def test_other_class_paths_stay(path: str) -> None:
    assert new_class_path(path) == path
