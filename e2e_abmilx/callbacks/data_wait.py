"""Whether the device is kept waiting for data."""

import logging
import os
import time

from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.loaders import BagLoader

logger = logging.getLogger(__name__)

_TOO_MUCH = 0.1  # of the time
_ENOUGH = 20  # batches that a share is worth a warning after


class DataWait(Callback):
    """Show and log ``train/data_wait``: the share of the epoch's training time spent waiting for patches.

    Above a tenth, the end of the epoch brings a warning that says what helps.
    """

    def __init__(self) -> None:
        self._computed_s = 0.0
        self._started = 0.0
        self._batches = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._computed_s, self._batches = 0.0, 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Begin to compute."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Log the share so far."""
        self._computed_s += time.perf_counter() - self._started
        self._batches += 1
        if isinstance(trainer.train_dataloader, BagLoader):
            share = self._share(trainer.train_dataloader)
            pl_module.log("train/data_wait", share, prog_bar=True, batch_size=1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn where too much time was lost."""
        loader = trainer.train_dataloader
        if not isinstance(loader, BagLoader) or self._batches < _ENOUGH or self._share(loader) <= _TOO_MUCH:
            return
        logger.warning(
            "epoch %d spent %.0f %% of its time waiting for patches, with data.workers %d on %d cores: raise"
            " data.workers, put the cache on a faster disk, or let the device decode (data.decode_on_device: true)",
            trainer.current_epoch,
            100 * self._share(loader),
            loader.num_workers,
            os.cpu_count() or 1,
        )

    def _share(self, loader: BagLoader) -> float:
        return loader.waited_s / (loader.waited_s + self._computed_s)
