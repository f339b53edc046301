"""Stopping a run that no longer gets better, but not on the strength of its first epochs."""

from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from e2e_abmilx.tasks import BagTask


class DeferredEarlyStopping(EarlyStopping):
    """Lightning's ``EarlyStopping``, but a run that has recovered by ``trainer.min_epochs`` goes on.

    Lightning remembers that the patience was at an end once, and stops at ``min_epochs`` even where the metric has
    been rising ever since.

    Args:
        monitor: Metric to stop by.
        mode: Whether more (``"max"``) or less (``"min"``) of it is better; by default what the task knows of it.
        **how: The other arguments of ``EarlyStopping``.
    """

    def __init__(self, monitor: str, mode: Literal["min", "max"] | None = None, **how: Any) -> None:  # noqa: ANN401
        super().__init__(monitor, mode=mode or "min", **how)
        self._stated = mode

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Settle the mode.

        Raises:
            InputError: There is no such metric, or its mode is contradicted or unknown.
        """
        if isinstance(pl_module, BagTask) and stage == "fit":
            mode = pl_module.monitors().mode_of(self.monitor, self._stated)
            if mode != self.mode:
                self.mode, self.min_delta = mode, -self.min_delta
                self.best_score = -self.best_score
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget a stop that came too early to be heeded; while its reason holds, each check renews it."""
        trainer.should_stop = False
