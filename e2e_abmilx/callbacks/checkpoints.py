"""The best and the last state of a run, in the run's folder."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from e2e_abmilx.tasks.base import BagTask


class BestAndLast(ModelCheckpoint):
    """Keep ``best.ckpt``, chosen on validation data, and ``last.ckpt`` in ``trainer.default_root_dir``.

    Args:
        monitor: Metric to choose by; by default the task's own.
        mode: ``"max"`` or ``"min"``.
    """

    def __init__(self, monitor: str | None = None, mode: str = "max") -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            save_last=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Settle the folder and the metric."""
        self.dirpath = self.dirpath or trainer.default_root_dir
        if self.monitor is None and isinstance(pl_module, BagTask):
            self.monitor = pl_module.monitor
        super().setup(trainer, pl_module, stage)
