"""Checks that task, data and trainer fit together."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer
from small_tasks import MeanColour, small_data, small_head, small_trainer

from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.errors import InputError
from e2e_abmilx.tasks import ClassificationTask
from e2e_abmilx.tasks.checks import (
    check_limits,
    check_outputs,
    check_processes,
    check_target,
    check_width,
    warn_of_gaps,
)
from e2e_abmilx.tasks.coverage import Coverage


def test_wrong_number_of_outputs_is_refused(cohort: Path, stores: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 classes \(0, 1\) and the model 3 outputs; set model\.num_outputs to 2"):
        small_trainer(tmp_path).fit(ClassificationTask(MeanColour(), small_head, 3), small_data(cohort, stores))


def test_another_target_is_refused() -> None:
    check_target("SurvivalTask", "survival", "survival")
    with pytest.raises(
        InputError, match=r"SurvivalTask learns from the target survival .* give label; set data\.target"
    ):
        check_target("SurvivalTask", "survival", "label")


def test_any_number_of_outputs_fits_data_without_classes() -> None:
    check_outputs((), 4)
    check_outputs(("a", "b"), 2)
    with pytest.raises(InputError, match=r"2 classes \(a, b\) and the model 4 outputs"):
        check_outputs(("a", "b"), 4)


def test_features_of_another_width_are_refused() -> None:
    check_width(Precomputed(8), 8)
    check_width(Precomputed(8), None)  # unknown before files are read
    check_width(MeanColour(), 8)  # the encoder has patches as its input
    with pytest.raises(InputError, match=r"16 features per patch .* states 8; set model\.encoder\.num_features to 16"):
        check_width(Precomputed(8), 16)


def _limited(**how: object) -> Trainer:
    limits = {f"limit_{name}_batches": 1.0 for name in ("val", "test", "predict")}
    return SimpleNamespace(**{"world_size": 2, **limits, **how})  # type: ignore[return-value]


@pytest.mark.parametrize("limit", [1, 5, 0.5])
def test_several_processes_refuse_limits_within_a_case(limit: float) -> None:
    with pytest.raises(InputError, match=f"limit_test_batches is {limit}, which ends in the middle of a case"):
        check_limits(_limited(limit_test_batches=limit))
    check_limits(_limited(limit_test_batches=limit, world_size=1))
    check_limits(_limited(limit_test_batches=limit, fast_dev_run=True))


@pytest.mark.parametrize("limit", [0, 0.0, 1.0])
def test_several_processes_accept_no_limit(limit: float) -> None:
    check_limits(_limited(limit_val_batches=limit))


@pytest.mark.parametrize(
    ("launcher", "variables"),
    [
        ("torchrun", {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"}),
        ("srun", {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}),
    ],
)
def test_processes_that_would_train_models_of_their_own_are_refused(
    launcher: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = small_trainer(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        InputError, match=rf"{launcher} started 2 processes, and the trainer is for 1: trainer\.num_nodes is 1"
    ):
        check_processes(trainer)
    for size in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.setenv(size, "1")
    check_processes(trainer)


def test_a_batch_script_without_srun_is_one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trainer = small_trainer(tmp_path)
    monkeypatch.setenv("SLURM_NTASKS", "4")
    check_processes(trainer)


def test_gaps_are_warned_of_once_with_metrics_of_one_reason_together(caplog: pytest.LogCaptureFixture) -> None:
    covered = Coverage({"auc": "all are of class a", "kappa": "all are of class a"}, ("no case of b",))
    warned: set[str] = set()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            warn_of_gaps("val", covered, warned)
    assert caplog.messages == ["the val split has no auc, kappa: all are of class a", "the val split has no case of b"]
