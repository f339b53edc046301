"""The attention to the patches of each tested case, in the run's folder, for the viewer."""

import logging
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.errors import InputError
from e2e_abmilx.tasks import BagTask, Prediction
from e2e_abmilx.tasks.case_maps import MapWriter
from e2e_abmilx.training.callbacks.predicted_slides import patches_by_slide, slides_of
from e2e_abmilx.training.callbacks.predictions import gather_by_case
from e2e_abmilx.training.callbacks.run_folder import folder_of, writes_tables

logger = logging.getLogger(__name__)


class _Written(NamedTuple):
    case: str


class AttentionMaps(Callback):
    """Write ``attention/<case>.npz`` into the run's folder for each case of a test or a prediction, for the viewer.

    Each process writes its own cases; the files replace those of an earlier test when all are written. Contributions are
    stored too where the head has any. Bags of features, and stores that do not know where their patches lie, have no
    maps: the log says so at the start. A trial run writes nothing. No failure of a map ends a test. See
    :func:`~e2e_abmilx.heatmaps.read_case_map`.
    """

    def __init__(self) -> None:
        self._writer: MapWriter | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the slides of each case, and log which will have no map."""
        self._start(trainer, trainer.test_dataloaders)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the slides of each case, and log which will have no map."""
        self._start(trainer, trainer.predict_dataloaders)

    def _start(self, trainer: Trainer, loader: object) -> None:
        self._writer = None
        if getattr(trainer, "fast_dev_run", False):
            return
        folder = folder_of(trainer)
        try:
            bags = slides_of(loader)
        except InputError as error:
            self._writer = MapWriter(folder, Path(), {})
            reason: str | None = f"no attention is stored, so that the viewer will have no overlay: {error}"
        else:
            self._writer = MapWriter(folder, bags.cache, patches_by_slide(bags))
            reason = self._writer.reason
        if reason and trainer.is_global_zero:
            logger.info("%s", reason)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, *args: object, **kwargs: object
    ) -> None:
        """Write the map of a case when its last batch returns the prediction."""
        if self._writer and isinstance(outputs, Prediction) and isinstance(pl_module, BagTask):
            self._writer.write(pl_module, outputs.case, outputs.scores)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the maps of an earlier test."""
        if self._writer is None:
            return
        written = gather_by_case([_Written(case) for case in self._writer.written])
        if writes_tables(trainer):
            self._writer.publish([one.case for one in written])
        self._writer = None

    on_predict_batch_end = on_test_batch_end
    on_predict_epoch_end = on_test_epoch_end
