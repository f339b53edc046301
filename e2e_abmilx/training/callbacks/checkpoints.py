"""The best and the last checkpoint of a run, in the run's folder."""

import logging
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from e2e_abmilx.errors import InputError
from e2e_abmilx.tasks.base import BagTask

logger = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """Keep ``best.ckpt`` in ``trainer.default_root_dir``, chosen by a metric of the validation cases.

    It is the checkpoint of the run: ``ckpt_path="best"`` means its file, whatever ``ModelCheckpoint`` the trainer has too.

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
        self._undefined: str | None = None  # the metric that val/loss stands in for

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Become the trainer's first checkpoint callback; set the folder, the metric and its mode.

        Raises:
            InputError: The metric does not exist, its mode is contradicted or unknown, or another callback would write
                ``best.ckpt`` too.
        """
        self.dirpath = self.dirpath or trainer.default_root_dir
        # Lightning takes the first one for "best", and has put all of them behind the other callbacks; it is iterating
        # over the present list, so that the new order is a new list
        trainer.callbacks = sorted(  # type: ignore[attr-defined]
            trainer.callbacks,  # type: ignore[attr-defined]
            key=lambda one: isinstance(one, Checkpoint) and one is not self,
        )
        if stage == "fit":
            _refuse_same_file(self, Path(self.dirpath, "best.ckpt"), trainer)
        if isinstance(pl_module, BagTask) and stage == "fit":
            monitor = self.monitor or pl_module.monitor
            self._choose_by(monitor, pl_module.monitors().mode_of(monitor, self._stated_mode))
            reason = pl_module.why_undefined(monitor)
            if reason is not None:
                self._fall_back(reason, has_loss=pl_module.loss_of_a_bag)
        super().setup(trainer, pl_module, stage)

    def state_dict(self) -> dict[str, Any]:
        """Return Lightning's state, and the metric that ``val/loss`` stands in for."""
        return {**super().state_dict(), "undefined": self._undefined}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Choose by the loss if the resumed run did so, because the metric had no value."""
        monitor, mode = self.monitor, self.mode
        self._choose_by("val/loss", "min")
        state = checkpoint["callbacks"].get(self.state_key, {})  # Lightning keeps it by the metric in use and its mode
        self._choose_by(monitor, mode)
        if monitor is not None and state.get("undefined") == monitor:
            self._fall_back("it had no value before the run was resumed", has_loss=True)

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
        self._undefined = self.monitor
        self._choose_by("val/loss" if has_loss else None, "min")

    def _choose_by(self, monitor: str | None, mode: str) -> None:
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

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse, by an InputError, another callback that would write ``last.ckpt`` too."""
        if stage == "fit":
            _refuse_same_file(self, Path(trainer.default_root_dir, "last.ckpt"), trainer)

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


def _refuse_same_file(own: Checkpoint, path: Path, trainer: Trainer) -> None:
    """Refuse, by an InputError, another checkpoint callback that would write the file of a run's own one."""
    for other in trainer.checkpoint_callbacks:
        if other is not own and isinstance(other, BestCheckpoint) and isinstance(own, BestCheckpoint):
            raise InputError(
                "there are two BestCheckpoint, but a run has one best.ckpt, which is tested; set the monitor of the run's"
                " own (--checkpoint.monitor), and keep other files by a ModelCheckpoint"
            )
        if other is own or not isinstance(other, ModelCheckpoint) or other.dirpath is None:
            continue
        names = [other.filename, *([other.CHECKPOINT_NAME_LAST] if other.save_last else [])]
        if path.resolve() in [Path(other.dirpath, f"{name}{other.FILE_EXTENSION}").resolve() for name in names]:
            raise InputError(
                f"{type(other).__name__} and {type(own).__name__} would both write {path}; give the {type(other).__name__}"
                " another dirpath, or another filename and no save_last"
            )
