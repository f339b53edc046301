"""The best and the last state of a run, in the run's folder."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

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


class LastCheckpoint(ModelCheckpoint):
    """Keep ``last.ckpt`` in ``trainer.default_root_dir``: the state after each epoch, to go on from.

    Lightning's own ``save_last`` is written only together with a new best one.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Settle the folder."""
        self.dirpath = self.dirpath or trainer.default_root_dir
        super().setup(trainer, pl_module, stage)
