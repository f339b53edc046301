"""The split of each case, in the run's folder."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.datamodules import BagDataModule


class SplitTable(Callback):
    """Write ``splits.csv`` into ``trainer.default_root_dir`` when a fit starts, in the format that ``data.splits`` reads."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table, from the first process only."""
        data = getattr(trainer, "datamodule", None)
        trial = getattr(trainer, "fast_dev_run", False)
        if trainer.is_global_zero and isinstance(data, BagDataModule) and not trial:
            data.write_splits(Path(trainer.default_root_dir, "splits.csv"))
