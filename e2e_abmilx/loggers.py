"""The run's table of metrics."""

import csv
import os
from pathlib import Path

from lightning.fabric.loggers.csv_logs import _ExperimentWriter
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter


class RunLogger(CSVLogger):
    """A ``CSVLogger`` whose ``metrics.csv`` goes on where an interrupted run is resumed.

    Lightning's deletes the file. Here a row that the resumed run logs again takes the place of the earlier one,
    and rows of later steps, which no longer hold, go.

    Args:
        folder: Folder of the run.
        version: Folder inside it; none for the run itself.
        resume: Whether ``metrics.csv`` is to be gone on with.
    """

    def __init__(self, folder: str | Path, *, version: str = "", resume: bool = False) -> None:
        super().__init__(folder, name="", version=version, flush_logs_every_n_steps=1)
        self.resume = resume

    @property
    @rank_zero_experiment
    def experiment(self) -> _ExperimentWriter:
        """The writer of the file."""
        if self._experiment is None:
            os.makedirs(self.log_dir, exist_ok=True)
            self._experiment = _Writer(self.log_dir, resume=self.resume)
        return self._experiment


class _Writer(ExperimentWriter):
    """Lightning's writer, but it keeps what still holds of an earlier file."""

    def __init__(self, log_dir: str, *, resume: bool) -> None:
        self.resume = resume
        super().__init__(log_dir)

    def save(self) -> None:
        """Write the rows logged since the last time."""
        if self.resume and self.metrics:
            self.resume = False
            self._drop_what_comes_again()
        super().save()

    def _drop_what_comes_again(self) -> None:
        with open(self.metrics_file_path, newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            rows, self.metrics_keys = list(table), sorted(table.fieldnames or [])
        first = self.metrics[0]
        kept = [
            row
            for row in rows
            if int(row["step"]) < first["step"]
            or (
                int(row["step"]) == first["step"]
                and {key for key, value in row.items() if value} != set(first)
            )
        ]
        partial = self.metrics_file_path + ".partial"
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(kept)
        os.replace(partial, self.metrics_file_path)

    def _check_log_dir_exists(self) -> None:
        if not os.path.isfile(self.metrics_file_path):
            self.resume = False
        elif not self.resume:
            os.remove(self.metrics_file_path)
