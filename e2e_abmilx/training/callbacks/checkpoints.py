"""The best and the last checkpoint of a run, in the run's folder."""

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
    """Keep ``best.ckpt`` in ``trainer.default_root_dir``, chosen by a metric of the validation cases.

    If the metric is undefined on them, such as the AUC of cases that are all of one class, the checkpoint is chosen by
    ``val/loss``. If the task has no such loss either, as Cox models, it is the last one.

    Args:
        monitor: Metric to choose by; by default the task's own.
        mode: Whether higher (``"max"``) or lower (``"min"``) values are better; by default as the task defines it.
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
        """Set the folder, the metric and its mode.

        Raises:
            InputError: The metric does not exist, or its mode is contradicted or unknown.
        """
        self.dirpath = self.dirpath or trainer.default_root_dir
        if isinstance(pl_module, BagTask) and stage == "fit":
            monitor = self.monitor or pl_module.monitor
            self._choose_by(monitor, pl_module.monitors().mode_of(monitor, self._stated_mode))
            reason = pl_module.why_undefined(monitor)
            if reason is not None:
                self._fall_back(reason, has_loss=pl_module.loss_of_a_bag)
        super().setup(trainer, pl_module, stage)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the checkpoint if it is the best, after a check that the metric has a value."""
        self._check_value(trainer)
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the checkpoint if it is the best, after a check that the metric has a value."""
        self._check_value(trainer)
        super().on_train_epoch_end(trainer, pl_module)

    def _check_value(self, trainer: Trainer) -> None:
        """Choose by the loss if the metric is NaN before any checkpoint has been chosen."""
        metrics, monitor = trainer.callback_metrics, self.monitor
        undefined = monitor in metrics and bool(metrics[monitor].isnan())
        if trainer.sanity_checking or self.best_model_path or not undefined or monitor == "val/loss":
            return
        if "val/loss" in metrics:
            self._fall_back(f"it has no value in epoch {trainer.current_epoch}", has_loss=True)

    def _fall_back(self, reason: str, *, has_loss: bool) -> None:
        """Choose by the loss or, without one, keep the last checkpoint."""
        rank_zero_only(logger.warning)(
            "%s cannot choose a checkpoint (%s): best.ckpt is %s",
            self.monitor,
            reason,
            "chosen by the lowest val/loss" if has_loss else "the last one",
        )
        self._choose_by("val/loss" if has_loss else None, "min")

    def _choose_by(self, monitor: str | None, mode: Literal["min", "max"]) -> None:
        self.monitor, self.mode = monitor, mode
        self.kth_value = torch.tensor(torch.inf if mode == "min" else -torch.inf)


class LastCheckpoint(Checkpoint):
    """Keep ``last.ckpt`` in ``trainer.default_root_dir``, which a run is resumed from, after each epoch and within it.

    Lightning's own ``save_last`` is written only together with a new best checkpoint.

    Args:
        every_n_steps: Optimizer steps between two checkpoints within an epoch.
    """

    def __init__(self, every_n_steps: int = 100) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}; it counts optimizer steps and must be at least 1")
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Save after an optimizer step, except the last one of the epoch, whose checkpoint follows validation."""
        done = batch_idx + 1
        stepped = done % trainer.accumulate_grad_batches == 0
        if stepped and done < trainer.num_training_batches and trainer.global_step % self.every_n_steps == 0:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after validation, with the results of the other callbacks."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if not getattr(trainer, "fast_dev_run", False):  # a trial run must not overwrite the files of a real one
            trainer.save_checkpoint(Path(trainer.default_root_dir, "last.ckpt"), weights_only=False)
