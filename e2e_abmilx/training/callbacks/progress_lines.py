"""Progress of a run as lines of the log, for output that is not a terminal."""

import logging
import math
from collections.abc import Mapping

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import RunningStage
from torch import Tensor

from e2e_abmilx.io.progress import Pace, Progress

logger = logging.getLogger(__name__)

_STEP_METRICS = ("train/loss_step", "train/data_wait")
_EVALUATIONS = {
    RunningStage.SANITY_CHECKING: ("checking validation", "num_sanity_val_batches"),
    RunningStage.VALIDATING: ("validating", "num_val_batches"),
    RunningStage.TESTING: ("testing", "num_test_batches"),
    RunningStage.PREDICTING: ("predicting", "num_predict_batches"),
}


class ProgressLines(ProgressBar):
    """Log the progress of a run in place of Lightning's bar.

    The first line comes after 5 s, the next ones at least 10 s apart, and one more at the end of each epoch, with the
    losses, the task's own metric and those that checkpoints and early stopping monitor. Epochs are counted from 0, as
    in ``metrics.csv``. The time to go is that until ``trainer.max_epochs`` or ``trainer.max_steps``, at the pace since
    the start of this process, validation included; it is left out where neither is set.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._pace = Pace()
        self._trained = 0
        self._validated = False
        self._evaluation: Progress | None = None

    def disable(self) -> None:
        """Stop logging."""
        self._enabled = False

    def enable(self) -> None:
        """Resume logging."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; batches of an earlier process do not count."""
        self._pace, self._trained = Pace(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Log the batch, its loss and the time spent waiting, if a line is due."""
        self._trained += 1
        if self._enabled and self._pace.is_due():
            place = f"epoch {trainer.current_epoch}, batch {batch_idx + 1} of {trainer.num_training_batches}"
            self._write_line(place, read_step_metrics(trainer), trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics of the epoch."""
        metrics = trainer.callback_metrics  # every process reads them, because that may gather values
        monitored = [getattr(one, "monitor", None) for one in (pl_module, *trainer.callbacks)]  # type: ignore[attr-defined]
        names = [name for name in ("train/loss_epoch", "val/loss", *monitored) if name in metrics]
        shown = {name: metrics[name] for name in names if self._validated or not name.startswith("val/")}
        self._validated = False
        if self._enabled:
            self._write_line(f"epoch {trainer.current_epoch}", shown, trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to count batches."""
        if self._enabled and trainer.state.stage is not None:
            doing, batches = _EVALUATIONS[trainer.state.stage]
            self._evaluation = Progress(doing, sum(getattr(trainer, batches)), "batches")

    def on_validation_batch_end(self, *args: object, **kwargs: object) -> None:
        """Count a batch."""
        if self._evaluation is not None:
            self._evaluation.advance()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log that all batches are done, if they took long."""
        if self._evaluation is not None:
            self._evaluation.close()
            self._evaluation = None
        self._validated = not trainer.sanity_checking

    on_test_start = on_predict_start = on_validation_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
    on_test_end = on_predict_end = on_validation_end

    def _write_line(self, place: str, metrics: Mapping[str, float | Tensor], trainer: Trainer) -> None:
        self._pace.postpone()
        values = (f"{name} {float(value):.4g}" for name, value in metrics.items())
        times = self._pace.describe(self._trained, batches_left(trainer))
        logger.info("%s: %s", place, ", ".join((*values, times)))


def read_step_metrics(trainer: Trainer) -> dict[str, float]:
    """Return the metrics of the last step as numbers, for which a GPU has to finish the step: not for every step."""
    metrics = trainer.callback_metrics
    return {name: float(metrics[name]) for name in _STEP_METRICS if name in metrics}


def batches_left(trainer: Trainer) -> float:
    """Return the number of training batches until the end of the fit; infinite where no end is set."""
    by_epochs = by_steps = math.inf
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        done = trainer.fit_loop.batch_idx + 1
        by_epochs = trainer.num_training_batches * (trainer.max_epochs - trainer.current_epoch) - done
    if trainer.max_steps >= 0:
        by_steps = (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches
    return min(by_epochs, by_steps)
