"""The table of predictions, in the run's folder."""

import csv
from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.tasks import BagTask, Prediction
from e2e_abmilx.training.callbacks.run_folder import folder_of, writes_tables


class _OfCase(Protocol):
    """A row of a table that names its case."""

    @property
    def case(self) -> str: ...


_Row = TypeVar("_Row", bound=_OfCase)


class PredictionTable(Callback):
    """Write ``predictions.csv``, one row per case, into the run's folder after a test or a prediction.

    Columns: ``case``; the truth, which is the label as the label table spells it, the time and event of a survival
    model, one label per class, or the value; and the scores. The truth is empty where it is unknown.
    """

    def __init__(self) -> None:
        self._rows: list[Prediction] = []

    def on_test_batch_end(self, *args: object, **kwargs: object) -> None:
        """Keep the prediction of a case, which the last batch of its patches returns."""
        prediction = args[2]
        if isinstance(prediction, Prediction):
            self._rows.append(prediction)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        rows, self._rows = gather_by_case(self._rows), []
        if not writes_tables(trainer) or not isinstance(pl_module, BagTask):
            return
        path = folder_of(trainer) / "predictions.csv"
        with atomic_write(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["case", *pl_module.truth_names(), *pl_module.score_names()])
            for row in rows:
                scores = [f"{row.scores[name]:.9g}" for name in pl_module.score_names()]
                table.writerow([row.case, *pl_module.truth(row), *scores])

    on_predict_batch_end = on_test_batch_end
    on_predict_epoch_end = on_test_epoch_end


def gather_by_case(rows: Sequence[_Row]) -> list[_Row]:
    """Return the rows of all processes, sorted by case so that their number does not change the order."""
    parts = [list(rows)]
    if torch.distributed.is_initialized():
        parts = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(parts, list(rows))
    return sorted((row for part in parts for row in part), key=lambda row: row.case)
