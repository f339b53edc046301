"""The fraction of training time that the device waits for data."""

import logging
import os
import time

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.data.loaders import BagLoader

logger = logging.getLogger(__name__)

_TOLERATED = 0.1  # fraction of the time
_MIN_BATCHES = 20  # fewer batches say too little for a warning


class DataWait(Callback):
    """Log ``train/data_wait``, the fraction of the epoch's training time spent waiting for patches.

    Only time in which the device has nothing to do counts; see :class:`~e2e_abmilx.data.loaders.WaitClock`. If it
    exceeds one tenth, a warning at the end of the epoch names the settings to change.
    """

    def __init__(self) -> None:
        self._batches = 0
        self._fraction = 0.0
        self._validation_s = 0.0
        self._validation_started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the counts."""
        self._batches, self._fraction, self._validation_s = 0, 0.0, 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Log the fraction of the epoch so far."""
        self._batches += 1
        if isinstance(trainer.train_dataloader, BagLoader):
            clock = trainer.train_dataloader.clock
            self._fraction = clock.waited_s / (time.perf_counter() - clock.started - self._validation_s)
            # a number would be copied to the GPU, for which the CPU would wait until all queued work is done
            pl_module.log("train/data_wait", torch.tensor(self._fraction), batch_size=1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: validation within an epoch is not training time."""
        self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restart the clock."""
        self._validation_s += time.perf_counter() - self._validation_started

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if the device waited too long."""
        loader = trainer.train_dataloader
        if not isinstance(loader, BagLoader) or self._batches < _MIN_BATCHES or self._fraction <= _TOLERATED:
            return
        logger.warning(
            "epoch %d spent %.0f %% of its time waiting for patches, with data.num_workers %d on %d cores: raise"
            " data.num_workers, put the cache on a faster disk, or let the device decode (data.decode_on_device: true)",
            trainer.current_epoch,
            100 * self._fraction,
            loader.num_workers,
            os.cpu_count() or 1,
        )
