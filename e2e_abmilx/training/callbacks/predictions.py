"""One row a case, in a CSV of the run's folder."""

import csv
from collections.abc import Sequence

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.tasks import BagTask, Prediction
from e2e_abmilx.training.callbacks.run_folder import folder_of


class PredictionTable(Callback):
    """Write ``predictions.csv`` into the run's folder, after a test or a prediction.

    Columns: case; what is known of it, such as label (as the label table spells it), or time and event of a survival
    model, or a label for each of several classes; and the scores.
    """

    def __init__(self) -> None:
        self._rows: list[Prediction] = []

    def on_test_batch_end(self, *args: object, **kwargs: object) -> None:
        """Keep the prediction that the last part of a case brings."""
        self._keep(args[2])

    def on_predict_batch_end(self, *args: object, **kwargs: object) -> None:
        """Keep the prediction that the last part of a case brings."""
        self._keep(args[2])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table of the test split."""
        self._write(trainer, pl_module)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table of all cases."""
        self._write(trainer, pl_module)

    def _keep(self, prediction: object) -> None:
        if isinstance(prediction, Prediction):
            # what is known of every patch would fill the memory
            self._rows.append(
                prediction._replace(output=None, features=None, coords=None, scale=None)  # type: ignore[arg-type]
            )

    def _write(self, trainer: Trainer, task: LightningModule) -> None:
        rows, self._rows = _of_all_processes(self._rows), []
        # a run to try things out has no table to leave, least of all in place of a whole one
        if (
            not trainer.is_global_zero
            or not isinstance(task, BagTask)
            or getattr(trainer, "fast_dev_run", False)
        ):
            return
        path = folder_of(trainer) / "predictions.csv"
        with atomic_write(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["case", *task.truth_names(), *task.score_names()])
            for row in rows:
                scores = [f"{row.scores[name]:.9g}" for name in task.score_names()]
                table.writerow([row.case, *task.truth(row), *scores])


def _of_all_processes(rows: Sequence[Prediction]) -> list[Prediction]:
    """The rows of all processes, by name: the order does not tell how many there were."""
    parts = [list(rows)]
    if torch.distributed.is_initialized():
        parts = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(parts, list(rows))
    return sorted((row for part in parts for row in part), key=lambda row: row.case)
