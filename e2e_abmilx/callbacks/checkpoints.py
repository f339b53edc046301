"""The best and the last state of a run, in the run's folder."""

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from e2e_abmilx.tasks.base import BagTask


class BestCheckpoint(ModelCheckpoint):
    """Keep ``best.ckpt`` in ``trainer.default_root_dir``, chosen on validation data.

    Args:
        monitor: Metric to choose by; by default the task's own.
        mode: Whether more (``"max"``) or less (``"min"``) of it is better.
    """

    def __init__(self, monitor: str | None = None, mode: str = "max") -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Settle the folder and the metric."""
        self.dirpath = self.dirpath or trainer.default_root_dir
        if self.monitor is None and isinstance(pl_module, BagTask):
            self.monitor = pl_module.monitor
        super().setup(trainer, pl_module, stage)


class LastCheckpoint(Checkpoint):
    """Keep ``last.ckpt`` in ``trainer.default_root_dir``, to go on from: after each epoch, and within it.

    Lightning's own ``save_last`` is written only together with a new best one.

    Args:
        every_n_steps: Optimizer steps between two writings inside an epoch.
    """

    def __init__(self, every_n_steps: int = 100) -> None:
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
        trainer.save_checkpoint(Path(trainer.default_root_dir, "last.ckpt"), weights_only=False)
