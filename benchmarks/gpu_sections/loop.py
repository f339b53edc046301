"""A fit with stores, the library's loader and Lightning's loop, timed after warm-up steps."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx import ClassificationTask, SlideDataModule
from e2e_abmilx.data.loaders import BagLoader
from e2e_abmilx.training.callbacks import DataWait
from gpu_sections.measure import Peak, Utilisation, synchronize
from gpu_sections.model import Batch


class Loop(NamedTuple):
    """The result of a fit.

    Attributes:
        seconds: Seconds per step.
        waiting: Fraction of the time in which the device waited for a batch.
        peak_gb: Peak memory, GB; None on a CPU.
        busy: GPU utilisation, percent; None if unknown.
        workers: Number of data loading processes.
    """

    seconds: float
    waiting: float
    peak_gb: float | None
    busy: float | None
    workers: int


class Window(Callback):
    """Measure steps after warm-up steps; the device is synchronised only before and after all of them.

    Args:
        steps: Number of measured steps.
        warm_up: Number of steps before them.
    """

    loop: Loop

    def __init__(self, steps: int, warm_up: int) -> None:
        self.steps, self.warm_up = steps, warm_up
        self._done = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Start the measurement after the warm-up, and end it after the last step."""
        self._done += 1
        if self._done == self.warm_up:
            self._begin(trainer, pl_module.device)
        elif self._done == self.warm_up + self.steps:
            self._end(trainer, pl_module.device)

    def _begin(self, trainer: Trainer, device: torch.device) -> None:
        self._peak = Peak(device).__enter__()
        self._utilisation = Utilisation(device)
        self._utilisation.start()
        self._waited_s = self._loader(trainer).clock.waited_s
        self._started = time.perf_counter()

    def _end(self, trainer: Trainer, device: torch.device) -> None:
        synchronize(device)
        seconds = time.perf_counter() - self._started
        loader = self._loader(trainer)
        waited_s = loader.clock.waited_s - self._waited_s
        self._peak.__exit__(None, None, None)
        busy = self._utilisation.stop()
        self.loop = Loop(seconds / self.steps, waited_s / seconds, self._peak.gb, busy, loader.num_workers)

    def _loader(self, trainer: Trainer) -> BagLoader:
        assert isinstance(trainer.train_dataloader, BagLoader)
        return trainer.train_dataloader


def fit(
    task: ClassificationTask,
    labels: Path,
    batch: Batch,
    *,
    device: str,
    precision: str,
    steps: int,
    warm_up: int,
    **data: Any,
) -> Loop:
    """Fit as ``e2e-abmilx fit`` does, but without writing files.

    Args:
        task: The model.
        labels: Label table in the folder of the stores, with enough cases for all steps, so that no epoch ends.
        batch: Sizes of a batch.
        device: ``"cuda"`` or ``"cpu"``.
        precision: The trainer's precision.
        steps: Number of measured steps.
        warm_up: Number of steps before them.
        **data: Other arguments of the data module.
    """
    window = Window(steps, warm_up)
    trainer = Trainer(
        accelerator=device,
        devices=1,
        precision=precision,
        max_steps=warm_up + steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[window, DataWait()],
    )
    trainer.fit(
        task, SlideDataModule(labels.parent, labels, patches_per_bag=batch.patches, batch_size=batch.bags, **data)
    )
    return window.loop
