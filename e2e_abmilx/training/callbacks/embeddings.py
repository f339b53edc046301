"""The embeddings of the tested cases, in the run's folder."""

from typing import NamedTuple

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.tasks import BagTask, Prediction
from e2e_abmilx.training.callbacks.predictions import gather_by_case
from e2e_abmilx.training.callbacks.run_folder import folder_of, writes_tables


class _Embedding(NamedTuple):
    case: str
    vector: NDArray[np.float32]


class EmbeddingTable(Callback):
    """Write ``embeddings.npz`` into the run's folder after a test, next to ``predictions.csv``.

    It has two arrays with a row per case: ``case``, its name, and ``embedding``, the input of the classifier
    (``HeadOutput.embedding``), float32 of shape ``(n, C)``. A report asks of them whether the model tells sites apart.
    """

    def __init__(self) -> None:
        self._rows: list[_Embedding] = []

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object, **kwargs: object) -> None:
        """Keep the embedding of a case, which the last batch of its patches completes."""
        prediction = args[0]
        if isinstance(prediction, Prediction) and isinstance(pl_module, BagTask) and pl_module.predicted_patches:
            vector = pl_module.predicted_patches.output.embedding[0]
            self._rows.append(_Embedding(prediction.case, vector.float().cpu().numpy()))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        rows, self._rows = gather_by_case(self._rows), []
        if not rows or not writes_tables(trainer):  # no row where no case is complete
            return
        with atomic_write(folder_of(trainer) / "embeddings.npz") as partial, open(partial, "wb") as file:
            np.savez(file, case=np.array([row.case for row in rows]), embedding=np.stack([row.vector for row in rows]))
