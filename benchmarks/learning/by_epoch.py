"""Attention to the validation bags, measured after each epoch of a fit."""

from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.tasks import BagTask
from learning.measures import measure_task, tile_truth


class AttentionByEpoch(Callback):
    """Log ``val/attention_auc``, ``val/noise_max_n`` and ``val/sparsity`` of a fit on the bags of ``write_bags``."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the attention, after the validation of the epoch, which must not be interrupted."""
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, SlideDataModule) or not isinstance(pl_module, BagTask):
            return
        truth = tile_truth(data.cache.parent)
        measured = measure_task(pl_module, data.cases["val"], data.cache, truth).mean
        pl_module.log_dict(
            {
                "val/attention_auc": measured.auc,
                "val/noise_max_n": measured.noise_max_n,
                "val/sparsity": measured.sparsity,
            }
        )
