"""Whether the device is kept waiting for data."""

import logging
import os
import time

from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.data.loaders import BagLoader

logger = logging.getLogger(__name__)

_TOO_MUCH = 0.1  # of the time
_ENOUGH = 20  # batches that a share is worth a warning after


class DataWait(Callback):
    """Show and log ``train/data_wait``: the share of the epoch's training time spent waiting for patches.

    It is the device that waits: time in which a GPU still had work is none; see
    :class:`~e2e_abmilx.data.loaders.WaitClock`. Above a tenth, the end of the epoch brings a warning that says what helps.
    """

    def __init__(self) -> None:
        self._batches = 0
        self._share = 0.0
        self._validated_s = 0.0
        self._validation_started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._batches, self._share, self._validated_s = 0, 0.0, 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Log the share so far."""
        self._batches += 1
        if isinstance(trainer.train_dataloader, BagLoader):
            clock = trainer.train_dataloader.clock
            self._share = clock.waited_s / (time.perf_counter() - clock.started - self._validated_s)
            pl_module.log("train/data_wait", self._share, prog_bar=True, batch_size=1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation within an epoch is no training time."""
        self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nor was what has passed."""
        self._validated_s += time.perf_counter() - self._validation_started

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn where too much time was lost."""
        loader = trainer.train_dataloader
        if not isinstance(loader, BagLoader) or self._batches < _ENOUGH or self._share <= _TOO_MUCH:
            return
        logger.warning(
            "epoch %d spent %.0f %% of its time waiting for patches, with data.num_workers %d on %d cores: raise"
            " data.num_workers, put the cache on a faster disk, or let the device decode (data.decode_on_device: true)",
            trainer.current_epoch,
            100 * self._share,
            loader.num_workers,
            os.cpu_count() or 1,
        )
