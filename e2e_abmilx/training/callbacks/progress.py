"""How far a run has come, where there is no terminal for a bar."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, ProgressBar
from torch import Tensor

from e2e_abmilx.io.progress import Lines, Pace
from e2e_abmilx.tasks import BagTask

logger = logging.getLogger(__name__)


class ProgressLines(ProgressBar):
    """Log how far a run has come, in place of Lightning's bar: for output that goes to a file.

    A line comes every 10 s at most, none in the first 5 s, and one more at the end of each epoch, with the losses, the
    task's own metric and those that checkpoints and early stopping go by. Epochs are counted from 0, as in
    ``metrics.csv``. The time to go is that to ``trainer.max_epochs`` or ``trainer.max_steps``, at the pace since the
    start, validation included; where both are open there is none.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._enabled = True
        self._pace = Pace(clock)
        self._trained = 0
        self._validated = False
        self._evaluation: Lines | None = None

    def disable(self) -> None:
        """Say nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Speak again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count; what an earlier process did says nothing of the pace of this one."""
        self._pace, self._trained = Pace(self._clock), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Tell where training is, and what Lightning's bar would show besides."""
        self._trained += 1
        if self._enabled and self._pace.is_due():
            place = f"epoch {trainer.current_epoch}, batch {batch_idx + 1} of {trainer.num_training_batches}"
            self._write(place, trainer.progress_bar_metrics, trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell what the epoch has brought."""
        metrics = trainer.callback_metrics  # read by every process: it may gather
        shown = _followed(trainer, pl_module, metrics, with_validation=self._validated)
        self._validated = False
        if self._enabled:
            self._write(f"epoch {trainer.current_epoch}", shown, trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        if trainer.sanity_checking:
            self._begin("checking validation", trainer.num_sanity_val_batches)
        else:
            self._begin("validating", trainer.num_val_batches)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._begin("testing", trainer.num_test_batches)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._begin("predicting", trainer.num_predict_batches)

    def on_validation_batch_end(self, *args: object, **kwargs: object) -> None:
        """Count a batch."""
        self._advance()

    def on_test_batch_end(self, *args: object, **kwargs: object) -> None:
        """Count a batch."""
        self._advance()

    def on_predict_batch_end(self, *args: object, **kwargs: object) -> None:
        """Count a batch."""
        self._advance()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell that all batches are done, and that the epoch has metrics of validation."""
        self._end()
        self._validated = not trainer.sanity_checking

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell that all batches are done."""
        self._end()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell that all batches are done."""
        self._end()

    def _begin(self, doing: str, batches: Sequence[float]) -> None:
        if self._enabled:
            self._evaluation = Lines(doing, sum(batches), "batches", clock=self._clock)

    def _advance(self) -> None:
        if self._evaluation is not None:
            self._evaluation.advance()

    def _end(self) -> None:
        if self._evaluation is not None:
            self._evaluation.close()
            self._evaluation = None

    def _write(self, place: str, metrics: Mapping[str, float | Tensor], trainer: Trainer) -> None:
        """Write a line of the fit."""
        self._pace.rest()
        values = (f"{name} {float(value):.4g}" for name, value in metrics.items())
        times = self._pace.describe(self._trained, _batches_left(trainer))
        logger.info("%s: %s", place, ", ".join((*values, times)))


def _followed(
    trainer: Trainer, task: LightningModule, metrics: Mapping[str, Tensor], *, with_validation: bool
) -> dict[str, Tensor]:
    """The losses, the task's own metric, and what checkpoints and early stopping go by."""
    names = ["train/loss_epoch", "val/loss"]
    if isinstance(task, BagTask):
        names.append(task.monitor)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ModelCheckpoint | EarlyStopping) and callback.monitor is not None:
            names.append(callback.monitor)
    return {
        name: metrics[name]
        for name in names
        if name in metrics and (with_validation or not name.startswith("val/"))
    }


def _batches_left(trainer: Trainer) -> float:
    """Training batches to the end of the fit; infinite where no end is set."""
    by_epochs = by_steps = math.inf
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        done = trainer.fit_loop.batch_idx + 1
        by_epochs = trainer.num_training_batches * (trainer.max_epochs - trainer.current_epoch) - done
    if trainer.max_steps >= 0:
        by_steps = (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches
    return min(by_epochs, by_steps)
