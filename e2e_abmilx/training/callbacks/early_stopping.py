"""Early stopping that takes effect only after ``trainer.min_epochs``."""

from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from e2e_abmilx.tasks import BagTask


class DeferredEarlyStopping(EarlyStopping):
    """Lightning's ``EarlyStopping``, except that a metric that has improved again by ``trainer.min_epochs`` counts.

    If the patience ends before ``min_epochs``, Lightning stops at ``min_epochs`` even if the metric has improved since
    then. This class decides anew after each epoch.

    Args:
        monitor: Metric to stop by.
        mode: Whether higher (``"max"``) or lower (``"min"``) values are better; by default as the task defines it.
        **how: The other arguments of ``EarlyStopping``.
    """

    def __init__(self, monitor: str, mode: Literal["min", "max"] | None = None, **how: Any) -> None:  # noqa: ANN401
        super().__init__(monitor, mode=mode or "min", **how)
        self._stated_mode = mode

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the mode.

        Raises:
            InputError: The metric does not exist, or its mode is contradicted or unknown.
        """
        if isinstance(pl_module, BagTask) and stage == "fit":
            mode = pl_module.monitors().mode_of(self.monitor, self._stated_mode)
            if mode != self.mode:
                self.mode, self.min_delta = mode, -self.min_delta
                self.best_score = -self.best_score
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Cancel a stop that came before ``min_epochs``; the next check repeats it while the patience is at an end."""
        trainer.should_stop = False
