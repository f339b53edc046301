"""The table of how faithful heatmaps are, in the run's folder."""

import csv
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.faithfulness import DELETED, INSERTED, most_evaluations
from e2e_abmilx.heads import PoolingHead
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.tasks import BagTask, Prediction
from e2e_abmilx.tasks.case_faithfulness import MapFaithfulness, measure_case
from e2e_abmilx.training.callbacks.predicted_slides import slides_of
from e2e_abmilx.training.callbacks.predictions import gather_by_case
from e2e_abmilx.training.callbacks.run_folder import folder_of, writes_tables
from e2e_abmilx.training.callbacks.slide_truth import SlideTruth

logger = logging.getLogger(__name__)


class Faithfulness(Callback):
    """Write ``faithfulness.csv``, one row per case and map, into the run's folder after a test.

    The maps are the attention, averaged over heads; the contributions to the predicted class, where the head has any;
    and a random map, the mean of 5 random orders. Patches are removed from a case in the order of its map, the highest
    first (deletion), and added in that order (insertion), and the head predicts again from the features of those that
    are there: at most 136 times per case, 106 times without contributions. Of a faithful map the score falls fast in
    deletion and rises fast in insertion. See :func:`~e2e_abmilx.evaluation.faithfulness.removal_curves`.

    Columns: ``case``; ``map``; ``score``, the score that is watched: the probability of the predicted class, the
    predicted value or the risk; ``patches``, their number; ``deletion`` and ``insertion``, the areas under the curves,
    as mean heights; ``auc``, of the map against the true patches, empty where a case lacks a mask, true patches or other
    ones; and the curves, ``deletion_0`` to ``deletion_99`` after that percentage was removed, and ``insertion_1`` to
    ``insertion_100``.

    Attention has no sign. It can be faithful to patches that speak against a high value or risk; the curve of deletion
    then rises.

    Args:
        truth: Folder of masks ``<slide>.png`` of the tested slides, each of the whole slide at any downsampling, not 0
            on what the label comes from; a patch is true if half of it is marked. By default the masks of a
            :class:`~e2e_abmilx.SyntheticDataModule`; other data have none.
    """

    def __init__(self, truth: Path | None = None) -> None:
        self.truth = truth
        self._masks: SlideTruth | None = None
        self._rows: list[MapFaithfulness] = []
        self._seconds = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a missing folder of masks before a fit, and not after it.

        Raises:
            InputError: It is missing.
        """
        if self.truth is not None and not Path(self.truth).is_dir():
            raise InputError(f"truth is {self.truth}, which is not a folder; name a folder of masks <slide>.png")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the masks.

        Raises:
            InputError: As :class:`~e2e_abmilx.training.callbacks.slide_truth.SlideTruth`, or the bags are not slides.
        """
        self._rows, self._seconds, self._masks = [], 0.0, None
        masks = self.truth or getattr(getattr(trainer, "datamodule", None), "masks", None)
        if masks is not None:
            self._masks = SlideTruth(Path(masks), slides_of(trainer.test_dataloaders))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, *args: object, **kwargs: object
    ) -> None:
        """Measure the maps of a case, when its last batch returns the prediction."""
        if not isinstance(outputs, Prediction) or not isinstance(pl_module, BagTask):
            return
        started = time.perf_counter()
        patches = pl_module.predicted_patches
        assert patches is not None  # the task has just predicted this case
        truth = None if self._masks is None else self._masks.of_case(outputs.case, patches)
        self._rows += measure_case(pl_module, outputs.case, truth)
        self._seconds += time.perf_counter() - started

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        rows, self._rows = gather_by_case(self._rows), []
        if not writes_tables(trainer) or not isinstance(pl_module, BagTask):
            return
        path = folder_of(trainer) / "faithfulness.csv"
        with atomic_write(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(_table(rows))
        has_contributions = isinstance(pl_module.head, PoolingHead)
        logger.info(
            "%s: the maps of %d cases took %.1f s, with at most %d evaluations of the head per case%s",
            path, len({row.case for row in rows}), self._seconds, most_evaluations(1 + has_contributions),
            "" if has_contributions else f"; {type(pl_module.head).__name__} has no contributions",
        )  # fmt: skip


def _table(rows: list[MapFaithfulness]) -> Iterator[list[str]]:
    """Yield the head of the table and its rows."""
    curves = [*(f"deletion_{percent}" for percent in DELETED), *(f"insertion_{percent}" for percent in INSERTED)]
    yield ["case", "map", "score", "patches", "deletion", "insertion", "auc", *curves]
    for row in rows:
        areas = [row.curves.deletion_area, row.curves.insertion_area]
        numbers = [*areas, row.auc, *row.curves.deletion, *row.curves.insertion]
        texts = ["" if math.isnan(number) else f"{number:.7g}" for number in numbers]
        yield [row.case, row.map, row.score, str(row.patches), *texts]
