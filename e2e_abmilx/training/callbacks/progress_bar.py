"""Progress of a run as bars in a terminal: time to go, patches per second, memory of the GPU."""

import math
import time
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.utilities.types import STEP_OUTPUT

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.training.callbacks.progress_lines import batches_left, read_step_metrics

_REFRESH_S = 0.5  # least time between two looks at metrics and memory, since reading a metric waits for the device


class PatchBar(TQDMProgressBar):
    """Lightning's bars, one per stage, which also show patches per second and, on a CUDA device, its memory.

    In training, the bar is that of the epoch, and the time until the fit ends, validation included, is next to it. The
    speed is that since the start of the stage, which in training is the epoch. The memory is what PyTorch has reserved
    on the device. The loss and the fraction of time spent waiting for data are read twice a second and in the last batch
    of an epoch, so that the device does not wait for the bar in every step. Metrics of your own are shown if they are
    logged with ``prog_bar=True``, for which Lightning waits in every step.
    """

    BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"  # patches/s replaces batches/s

    def __init__(self) -> None:
        super().__init__(refresh_rate=1)
        self._started, self._shown, self._patches = 0.0, 0.0, 0
        self._metrics: dict[str, float | dict[str, float]] = {}
        self._training = self._started, self._patches
        self._train_started, self._trained = 0.0, 0

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the figures of the stage, the time until the fit ends, and the metrics that were read last."""
        shown: dict[str, Any] = dict(self._figures(pl_module))
        left = batches_left(trainer)
        if self._trained and 0 < left < math.inf:
            left_s = (time.monotonic() - self._train_started) / self._trained * left
            shown["fit ends in"] = str(timedelta(seconds=round(left_s)))
        return shown | {name.removeprefix("train/"): value for name, value in self._metrics.items()}

    def on_train_start(self, *more: Any) -> None:  # noqa: ANN401
        """Start the clock of the fit; batches of an earlier process do not count."""
        super().on_train_start(*more)
        self._train_started, self._trained = time.monotonic(), 0

    def on_train_epoch_start(self, trainer: Trainer, *more: Any) -> None:  # noqa: ANN401
        """Start to count patches, and name the epoch, counted from 0 as in ``metrics.csv``."""
        super().on_train_epoch_start(trainer, *more)
        self._restart()
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            self.train_progress_bar.set_description(f"Epoch {trainer.current_epoch}/{trainer.max_epochs - 1}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Count the patches of the batch, and read the metrics if they are due."""
        self._patches += _count(batch)
        self._trained += 1
        if self.is_enabled and (self._is_due() or batch_idx + 1 == trainer.num_training_batches):
            self._metrics = {**read_step_metrics(trainer), **trainer.progress_bar_metrics}
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the patches of the evaluation, and keep the count of training."""
        super().on_validation_start(trainer, pl_module)
        self._training = (self._started, self._patches)
        self._restart()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: object,
        *more: Any,  # noqa: ANN401
    ) -> None:
        """Show the speed of the evaluation."""
        self._show(self.val_progress_bar, pl_module, batch)
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, *more)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the count of training; the time of the evaluation does not belong to it."""
        super().on_validation_end(trainer, pl_module)
        started, patches = self._training
        self._started, self._patches = started + time.monotonic() - self._started, patches

    def on_test_start(self, *more: Any) -> None:  # noqa: ANN401
        """Start to count patches."""
        super().on_test_start(*more)
        self._restart()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: object,
        *more: Any,  # noqa: ANN401
    ) -> None:
        """Show the speed of the test."""
        self._show(self.test_progress_bar, pl_module, batch)
        super().on_test_batch_end(trainer, pl_module, outputs, batch, *more)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to count patches."""
        super().on_predict_start(trainer, pl_module)
        self._restart()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: object,
        *more: Any,  # noqa: ANN401
    ) -> None:
        """Show the speed of the prediction."""
        self._show(self.predict_progress_bar, pl_module, batch)
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, *more)

    def _restart(self) -> None:
        self._started, self._shown, self._patches = time.monotonic(), 0.0, 0

    def _show(self, bar: Tqdm, pl_module: LightningModule, batch: object) -> None:
        self._patches += _count(batch)
        if self._is_due():
            bar.set_postfix(self._figures(pl_module), refresh=False)

    def _is_due(self) -> bool:
        """Return whether half a second has passed since the last time that this was so."""
        due = time.monotonic() - self._shown >= _REFRESH_S
        if due:
            self._shown = time.monotonic()
        return due

    def _figures(self, pl_module: LightningModule) -> dict[str, str]:
        elapsed_s = time.monotonic() - self._started
        figures = {"patches/s": f"{self._patches / elapsed_s:.0f}"} if self._patches and elapsed_s > 0 else {}
        if pl_module.device.type == "cuda":
            figures["GPU"] = f"{torch.cuda.memory_reserved(pl_module.device) / 1e9:.1f} GB"
        return figures


def _count(batch: object) -> int:
    """Return the number of patches of a batch, without waiting for the device; 0 if it is no batch of bags."""
    if not isinstance(batch, Bag):
        return 0
    return batch.mask.numel() if batch.real is None else batch.real.numel()
