"""Early stopping takes effect only after min_epochs, and by a metric that has values."""

import json
from pathlib import Path

import pytest
import torch
from feature_runs import column, fit, write_config
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from scripted import Scripted
from torch.utils.data import DataLoader

from e2e_abmilx.training.callbacks.early_stopping import DeferredEarlyStopping

TIES_COUNT = -1e-6  # min_delta with which a tie counts as an improvement, in float32 too


class _Trace(Checkpoint):
    """Record the epochs since the best one after each epoch; checkpoint callbacks run last."""

    def __init__(self, stopping: EarlyStopping) -> None:
        self.stopping = stopping
        self.waited: list[int] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.waited.append(self.stopping.wait_count)


def _fit(stopping: EarlyStopping, scores: list[float], *, min_epochs: int) -> list[int]:
    trace = _Trace(stopping)
    loader = DataLoader([torch.ones(1)])
    trainer = Trainer(
        max_epochs=len(scores), min_epochs=min_epochs, accelerator="cpu", logger=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[stopping, trace],
    )  # fmt: skip
    trainer.fit(Scripted(scores), loader, loader)
    return trace.waited


@pytest.mark.parametrize("name", ["plateau_ties", "decline", "improve_late", "never(stop>=n)"])
def test_against_the_authors_traces(shared: Path, name: str) -> None:
    """Theirs counts epochs from 0 and stops after one above ``stop_epoch``: after ``stop_epoch + 2`` epochs at least."""
    run = json.loads((shared / "reference/schedule_reference.json").read_text())["early_stopping"][name]
    stopping = DeferredEarlyStopping("val/auc", mode="max", patience=run["patience"], min_delta=TIES_COUNT)
    waited = _fit(stopping, run["scores"], min_epochs=run["stop_epoch"] + 2)
    epochs, _, counters, stops = zip(*run["trace"], strict=True)
    assert (len(epochs), list(counters)) == (len(waited), waited)
    assert stops[-1] == (len(waited) < len(run["scores"]))


@pytest.mark.parametrize(
    ("stopping", "epochs"),
    [
        (EarlyStopping, 6),  # the defect; once this is 10, DeferredEarlyStopping can be removed
        (DeferredEarlyStopping, 10),
    ],
)
def test_a_recovered_run_continues(stopping: type[EarlyStopping], epochs: int) -> None:
    scores = [0.6, 0.5, 0.5, 0.7, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85]
    assert len(_fit(stopping("val/auc", mode="max", patience=2), scores, min_epochs=6)) == epochs


def test_patience_counts_the_first_epochs() -> None:
    scores = [0.9, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    assert len(_fit(DeferredEarlyStopping("val/auc", mode="max", patience=4), scores, min_epochs=3)) == 5


@pytest.mark.parametrize("kind", ["EarlyStopping", "DeferredEarlyStopping"])
def test_an_undefined_metric_cannot_stop_a_run(kind: str, tmp_path: Path) -> None:
    options = [f"--trainer.callbacks+={kind}", "--trainer.callbacks.monitor=val/auc", "--trainer.callbacks.mode=max"]
    with pytest.raises(SystemExit, match=rf"{kind} cannot stop by val/auc \(all 6 cases are of class 1\)"):
        fit(write_config(tmp_path, split="one class"), *options)


def test_the_mode_is_that_of_the_metric(tmp_path: Path) -> None:
    path = "e2e_abmilx.training.callbacks.early_stopping.DeferredEarlyStopping"
    options = [f"--trainer.callbacks+={path}", "--trainer.callbacks.monitor=val/auc"]
    with pytest.raises(SystemExit, match=r"DeferredEarlyStopping cannot stop by val/auc"):
        fit(write_config(tmp_path, split="one class"), *options)
    fit(write_config(tmp_path), *options)
    with pytest.raises(SystemExit, match="set mode: max"):
        fit(write_config(tmp_path), *options, "--trainer.callbacks.mode=min")


def test_the_mode_of_an_own_metric_is_that_of_its_task(tmp_path: Path) -> None:
    options = ["--trainer.callbacks+=DeferredEarlyStopping", "--trainer.callbacks.monitor=val/cost"]
    fit(write_config(tmp_path), "--model=own_tasks.LowCost", *options, "--trainer.max_epochs", "9")
    assert column(tmp_path / "run", "val/cost") == [
        1,
        0,
        1,
        4,
        9,
    ]  # the patience of 3 follows the lowest, not the highest
