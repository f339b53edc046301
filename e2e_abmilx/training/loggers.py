"""The logger that writes ``metrics.csv``."""

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
    """``CSVLogger`` whose ``metrics.csv`` is continued when a run is resumed.

    Lightning deletes the file. Here the rows that the resumed run logs again are replaced, and earlier ones are kept.

    Args:
        folder: Folder of the run.
        version: Subfolder for the file; empty for the folder of the run itself.
        resume: Whether to continue an existing ``metrics.csv``.
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
    """Lightning's writer, except that a resumed run keeps the earlier rows of the file."""

    def __init__(self, log_dir: str, *, resume: bool) -> None:
        self.resume, self.has_written = resume, False
        super().__init__(log_dir)

    def save(self) -> None:
        """Write the rows logged since the last call; before the first ones, remove outdated rows or the whole file."""
        if self.metrics and not self.has_written:
            self.has_written = True
            exists = os.path.isfile(self.metrics_file_path)
            if exists and self.resume:
                self._remove_outdated_rows()
            elif exists:
                os.remove(self.metrics_file_path)
        super().save()

    def _remove_outdated_rows(self) -> None:
        with open(self.metrics_file_path, newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            rows, self.metrics_keys = list(table), sorted(table.fieldnames or [])
        first = self.metrics[0]
        kept = itertools.takewhile(lambda row: not _is_at_or_after(row, first), rows)
        with (
            atomic_write(Path(self.metrics_file_path)) as partial,
            open(partial, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(kept)

    def _check_log_dir_exists(self) -> None:
        """Keep an existing file for now: the run may still be refused."""


def _is_at_or_after(row: Mapping[str, str], logged: Mapping[str, float]) -> bool:
    """Return whether a row of the file has a later step than a logged one, or the same step and columns."""
    columns = {key for key, value in row.items() if value}
    step = int(row["step"])
    return step > logged["step"] or (step == logged["step"] and columns == set(logged))
