"""Predictions of a trainer with the patches of every case, which tasks keep for one case at a time."""

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from e2e_abmilx.tasks import BagTask, Prediction
from e2e_abmilx.tasks.prediction import PredictedPatches


class _Kept(Callback):
    def __init__(self) -> None:
        self.found: list[tuple[Prediction, PredictedPatches]] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, *args: object
    ) -> None:
        if isinstance(outputs, Prediction) and isinstance(pl_module, BagTask):
            assert pl_module.predicted_patches is not None
            self.found.append((outputs, pl_module.predicted_patches))


def predict_patches(
    trainer: Trainer, task: BagTask, data: LightningDataModule
) -> list[tuple[Prediction, PredictedPatches]]:
    """Predict all cases, and return each prediction with its patches."""
    kept = _Kept()
    trainer.callbacks = [*trainer.callbacks, kept]  # type: ignore[attr-defined]
    trainer.predict(task, data)
    return kept.found
