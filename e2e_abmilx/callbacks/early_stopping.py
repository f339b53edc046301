"""Stopping a run that no longer gets better, but not on the strength of its first epochs."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping


class PatientStopping(EarlyStopping):
    """Lightning's ``EarlyStopping``, but a run that has recovered by ``trainer.min_epochs`` goes on.

    Lightning remembers that the patience was at an end once, and stops at ``min_epochs`` even where the metric has
    been rising ever since. The arguments are those of ``EarlyStopping``.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget a stop that came too early to be heeded; while its reason holds, each check renews it."""
        trainer.should_stop = False
