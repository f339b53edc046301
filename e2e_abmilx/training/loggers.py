"""The run's table of metrics."""

import csv
import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from lightning.fabric.loggers.csv_logs import _ExperimentWriter
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from e2e_abmilx.io.atomic import atomic_write


class RunLogger(CSVLogger):
    """A ``CSVLogger`` whose ``metrics.csv`` goes on where an interrupted run is resumed.

    Lightning's deletes the file. Here the rows from the first one on that the resumed run logs again are replaced.

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
        self.resume, self.begun = resume, False
        super().__init__(log_dir)

    def save(self) -> None:
        """Write the rows logged since the last time; with the first ones, settle what becomes of an earlier file."""
        if self.metrics and not self.begun:
            self.begun = True
            there = os.path.isfile(self.metrics_file_path)
            if there and self.resume:
                self._drop_what_comes_again()
            elif there:
                os.remove(self.metrics_file_path)
        super().save()

    def _drop_what_comes_again(self) -> None:
        with open(self.metrics_file_path, newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            rows, self.metrics_keys = list(table), sorted(table.fieldnames or [])
        again = self.metrics[0]
        kept = list(itertools.takewhile(lambda row: not _comes_at_or_after(row, again), rows))
        with (
            atomic_write(Path(self.metrics_file_path)) as partial,
            open(partial, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(kept)

    def _check_log_dir_exists(self) -> None:
        """Leave the file alone: the run may yet be refused."""


def _comes_at_or_after(row: Mapping[str, str], logged: Mapping[str, float]) -> bool:
    """Whether a row of the file is that of the same step and columns, or of a later step."""
    columns = {key for key, value in row.items() if value}
    return int(row["step"]) > logged["step"] or (
        int(row["step"]) == logged["step"] and columns == set(logged)
    )
