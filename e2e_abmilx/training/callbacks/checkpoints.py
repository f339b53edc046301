"""The best and the last state of a run, in the run's folder."""

import logging
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from e2e_abmilx.tasks.base import BagTask

logger = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """Keep ``best.ckpt`` in ``trainer.default_root_dir``, chosen on validation data.

    Where the validation cases cannot tell the metric, such as an AUC of cases that are all of one class, it is chosen by
    ``val/loss``; and where that means nothing either, as for Cox models, it is the last one.

    Args:
        monitor: Metric to choose by; by default the task's own.
        mode: Whether more (``"max"``) or less (``"min"``) of it is better; by default what the task knows of it.
    """

    def __init__(self, monitor: str | None = None, mode: Literal["min", "max"] | None = None) -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode or "max",
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self._stated_mode = mode

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Settle the folder, the metric and its mode.

        Raises:
            InputError: There is no such metric, or its mode is contradicted or unknown.
        """
        self.dirpath = self.dirpath or trainer.default_root_dir
        if isinstance(pl_module, BagTask) and stage == "fit":
            self._settle_metric(pl_module)
        super().setup(trainer, pl_module, stage)

    def _settle_metric(self, task: BagTask) -> None:
        self.monitor = self.monitor or task.monitor
        mode = task.monitors().mode_of(self.monitor, self._stated_mode)
        reason = task.why_undefined(self.monitor)
        if reason is not None:
            fallback = "val/loss" if task.loss_of_a_bag else None
            rank_zero_only(logger.warning)(
                "%s cannot choose a checkpoint (%s): best.ckpt is %s",
                self.monitor,
                reason,
                "chosen by the lowest val/loss" if fallback else "the last one",
            )
            self.monitor, mode = fallback, "min"
        self.mode, self.kth_value = mode, torch.tensor(torch.inf if mode == "min" else -torch.inf)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose, by a metric that has a value."""
        self._fall_back(trainer)
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose, by a metric that has a value."""
        self._fall_back(trainer)
        super().on_train_epoch_end(trainer, pl_module)

    def _fall_back(self, trainer: Trainer) -> None:
        """Choose by the loss from the first validation on, where the metric turns out to have no value."""
        metrics, monitor = trainer.callback_metrics, self.monitor
        undefined = monitor in metrics and bool(metrics[monitor].isnan())
        if trainer.sanity_checking or self.best_model_path or not undefined or "val/loss" not in metrics:
            return
        if monitor != "val/loss":
            rank_zero_only(logger.warning)(
                "%s has no value in epoch %d: best.ckpt is chosen by the lowest val/loss",
                monitor,
                trainer.current_epoch,
            )
            self.monitor, self.mode, self.kth_value = "val/loss", "min", torch.tensor(torch.inf)


class LastCheckpoint(Checkpoint):
    """Keep ``last.ckpt`` in ``trainer.default_root_dir``, to go on from: after each epoch, and within it.

    Lightning's own ``save_last`` is written only together with a new best one.

    Args:
        every_n_steps: Optimizer steps between two writings inside an epoch.
    """

    def __init__(self, every_n_steps: int = 100) -> None:
        if every_n_steps < 1:
            raise ValueError(
                f"every_n_steps is {every_n_steps}; it counts optimizer steps and must be at least 1"
            )
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Save between two optimizer steps; the end of the epoch has its own turn, after validation."""
        done = batch_idx + 1
        stepped = done % trainer.accumulate_grad_batches == 0
        if stepped and done < trainer.num_training_batches and trainer.global_step % self.every_n_steps == 0:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, with what validation and the other callbacks have brought."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if getattr(trainer, "fast_dev_run", False):  # which leaves nothing, least of all in place of a run
            return
        trainer.save_checkpoint(Path(trainer.default_root_dir, "last.ckpt"), weights_only=False)
