import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from scripted import Scripted
from torch.utils.data import DataLoader

from e2e_abmilx.training.callbacks.early_stopping import DeferredEarlyStopping

TIES_COUNT = -1e-6  # as improvements, in float32 too


class _Trace(Checkpoint):
    """Epochs since the best one, as they are after each epoch: checkpoints have the last turn."""

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
    """Theirs stops after an epoch numbered above ``stop_epoch``, from 0: after ``stop_epoch + 2`` at the earliest."""
    run = json.loads((shared / "reference/schedule_reference.json").read_text())["early_stopping"][name]
    stopping = DeferredEarlyStopping("val/auc", mode="max", patience=run["patience"], min_delta=TIES_COUNT)
    waited = _fit(stopping, run["scores"], min_epochs=run["stop_epoch"] + 2)
    epochs, _, counters, stops = zip(*run["trace"], strict=True)
    assert (len(epochs), list(counters)) == (len(waited), waited)
    assert stops[-1] == (len(waited) < len(run["scores"]))


@pytest.mark.parametrize(
    ("stopping", "epochs"),
    [
        (EarlyStopping, 6),  # what is mended; should it end at 10 one day, DeferredEarlyStopping can go
        (DeferredEarlyStopping, 10),
    ],
)
def test_a_recovered_run_goes_on(stopping: type[EarlyStopping], epochs: int) -> None:
    scores = [0.6, 0.5, 0.5, 0.7, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85]
    assert len(_fit(stopping("val/auc", mode="max", patience=2), scores, min_epochs=6)) == epochs


def test_patience_goes_on_over_the_first_epochs() -> None:
    scores = [0.9, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    assert len(_fit(DeferredEarlyStopping("val/auc", mode="max", patience=4), scores, min_epochs=3)) == 5
