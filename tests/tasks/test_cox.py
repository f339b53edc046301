"""CoxTask: one output, no time bins, and a memory of recent bags."""

from pathlib import Path

import pytest
import torch
from small_tasks import MeanColour, fit, small_head

from e2e_abmilx.errors import InputError
from e2e_abmilx.tasks import CoxTask


def test_several_outputs_and_time_bins_are_refused(cohort: Path, stores: Path, tmp_path: Path) -> None:
    """Otherwise meaningless scores of time bins would be written."""
    with pytest.raises(InputError, match="one output, the log hazard ratio, and not 4"):
        CoxTask(MeanColour(), small_head, 4)
    with pytest.raises(InputError, match=r"no time bins, and the data have 4; set data\.time_bins to 1"):
        fit(CoxTask(MeanColour(), small_head, 1), cohort, stores, tmp_path, target="survival", time_bins=4)


def test_training_fills_the_memory(cohort: Path, stores: Path, tmp_path: Path) -> None:
    task = CoxTask(MeanColour(), small_head, 1)
    trainer = fit(task, cohort, stores, tmp_path, target="survival", time_bins=1)
    assert "val/c_index" in trainer.callback_metrics
    assert "val/loss" not in trainer.callback_metrics
    trained = len(trainer.datamodule.cases["train"]) // 2 * 2  # type: ignore[union-attr]
    assert task.loss.times.isfinite().sum() == trained
    assert torch.isfinite(trainer.callback_metrics["train/loss_epoch"])
    assert task.threshold is not None
