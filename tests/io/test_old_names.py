"""Names of the first release: what they are called now."""

import inspect
from pathlib import Path
from pkgutil import resolve_name

import pytest

from e2e_abmilx.cohort.cohort_plan import CohortPlan
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.datamodules.base import BagDataModule
from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.heads import ABMIL
from e2e_abmilx.io.old_names import (
    CLASS_PATHS,
    DATA_ARGUMENTS,
    METRICS,
    TASK_ARGUMENTS,
    new_class_path,
    new_metric,
    update_callback_states,
    update_hyperparameters,
)
from e2e_abmilx.tasks import BagTask, ClassificationTask
from e2e_abmilx.training.callbacks import BestCheckpoint, DeferredEarlyStopping


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
    crops = {"class_path": "e2e_abmilx.augment.RandomCrops", "init_args": {"size": 32}}
    own = {"class_path": "my_lab.heads.Head", "init_args": {"inner": dict(schedule)}}
    found = update_hyperparameters(
        {"encoder_chunk": 3, "recompute": True, "schedule": schedule, "augment": crops, "head": own}
    )
    moved = {"class_path": "e2e_abmilx.tasks.schedules.WarmupCosine", "init_args": {"warmup": 0.1}}
    assert found == {
        "train_chunk_size": 3,
        "gradient_checkpointing": True,
        "schedule": moved,
        "augment": {"class_path": "e2e_abmilx.encoders.augment.RandomCrops", "init_args": {"size": 32}},
        "head": {"class_path": "my_lab.heads.Head", "init_args": {"inner": moved}},
    }


@pytest.mark.parametrize(
    "path", ["my_lab.callbacks.PatientStopping", "PatientStoppingToo", "e2e_abmilx.heads.ABMILX", "torch.optim.AdamW"]
)
def test_other_class_paths_stay(path: str) -> None:
    assert new_class_path(path) == path


def test_states_of_callbacks_are_found_by_the_callbacks_of_today() -> None:
    """Lightning keeps a callback's state by its class and its metric."""
    for old, new in METRICS.items():
        best, stopping = BestCheckpoint(monitor=f"val/{new}", mode="max"), DeferredEarlyStopping(f"val/{new}")
        states = {
            best.state_key.replace(new, old): {"best_model_score": 0.9},
            stopping.state_key.replace(new, old).replace("DeferredEarlyStopping", "PatientStopping"): {"wait_count": 3},
        }
        assert update_callback_states(states) == {
            best.state_key: {"best_model_score": 0.9},
            stopping.state_key: {"wait_count": 3},
        }


def test_states_of_other_callbacks_stay() -> None:
    states = {
        "EarlyStopping{'monitor': 'val/auc', 'mode': 'max'}": {},
        "my_lab.Own": {},
        "ModelCheckpoint{'monitor': None}": {},
    }
    assert update_callback_states(states) == states


def test_a_task_restores_them(tmp_path: Path) -> None:
    checkpoint = {"callbacks": {"PatientStopping{'monitor': 'val/kappa_quadratic'}": {"wait_count": 3}}}
    ClassificationTask(Precomputed(4), ABMIL, 2).on_load_checkpoint(checkpoint)
    assert checkpoint["callbacks"] == {"DeferredEarlyStopping{'monitor': 'val/qwk'}": {"wait_count": 3}}


@pytest.mark.parametrize(
    ("old", "new"), [("val/kappa_quadratic", "val/qwk"), ("val/kappa", "val/kappa"), ("epoch", "epoch")]
)
def test_metrics_are_renamed_as_a_whole(old: str, new: str) -> None:
    assert new_metric(old) == new
