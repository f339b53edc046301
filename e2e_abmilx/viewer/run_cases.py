"""The cases of a run: what was predicted for each, most wrong first, and what the model looked at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from e2e_abmilx.errors import InputError
from e2e_abmilx.heatmaps.case_map import ATTENTION, CaseMap, MapError, case_file_name, read_case_map
from e2e_abmilx.reports.cases import case_table
from e2e_abmilx.reports.origins import Origin
from e2e_abmilx.runs.read import Run, columns_named, in_words, read_settings, read_test_metrics
from e2e_abmilx.viewer.predictions import read_rows, task_of


@dataclass(frozen=True)
class RunCases:
    """The cases of a run, or of a folder that ``predict`` wrote.

    Attributes:
        folder: The folder that was named.
        tested: The folder of ``predictions.csv`` and of the maps: that folder, or ``test`` in it where only a later test
            stored maps.
        settings: Content of ``fit.yaml``; empty where there is none.
        task: ``"classification"``, ``"multi_label"``, ``"survival"`` or ``"regression"``.
        table: One row per case, indexed by its name, most wrong first, then those whose truth is unknown. Columns: those
            of ``predictions.csv``, numbers parsed, and ``correctness`` as in :func:`~e2e_abmilx.reports.cases.case_table`.
    """

    folder: Path
    tested: Path
    settings: Mapping[str, Any]
    task: str
    table: pd.DataFrame = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> "RunCases":
        """Read the cases of a folder.

        Raises:
            InputError: It has no ``predictions.csv``, or one that cannot be read.
        """
        folder = folder if folder.name not in ("", "..") else folder.resolve()  # the page shows its name
        later = folder / "test"
        has_maps = [any((one / ATTENTION).glob("*.npz")) for one in (folder, later)]
        tested = later if has_maps == [False, True] and (later / "predictions.csv").is_file() else folder
        settings = _settings_of(folder)
        rows = read_rows(tested / "predictions.csv")
        task = task_of(rows, settings)
        if "threshold" not in rows:
            rows["threshold"] = float(read_test_metrics(tested).get("test/threshold", "nan"))
        return cls(folder, tested, settings, task, _most_wrong_first(rows, task, tested))

    @property
    def names(self) -> list[str]:
        """Names of the cases, most wrong first."""
        return list(map(str, self.table.index))

    @property
    def notes(self) -> list[str]:
        """What a reader must know about the predictions and the attention, as sentences."""
        notes = []
        if self.tested != self.folder:
            notes.append(
                f"Predictions and attention are those of {self.tested}; the run itself has stored no attention."
            )
        if columns_named("std_", self.table):
            notes.append(
                f"Predictions of {self.folder} are means over the models of an ensemble; stored attention is that of the"
                " first model."
            )
        return notes

    def row(self, case: str) -> dict[str, Any]:
        """Return the row of a case, by column."""
        return {str(name): value for name, value in self.table.loc[case].items()}

    def has_map(self, case: str) -> bool:
        """Return whether the attention to a case is stored."""
        return (self.tested / ATTENTION / case_file_name(case)).is_file()

    def read_map(self, case: str) -> tuple[CaseMap | None, str | None]:
        """Return the map of a case, or None and a sentence that says why there is none."""
        if case not in self.table.index:
            return None, f"{self.tested} has no case {case!r}"
        try:
            return read_case_map(self.tested, case, self.row(case)), None
        except MapError as error:
            return None, str(error)

    @cached_property
    def slides(self) -> dict[str, tuple[str, ...]]:
        """The slides of each case by the label table; empty where that can no longer be read."""
        origin = self.origin
        if origin is None:
            return {}
        labels = origin.labels and find_again(origin.labels, self.folder)
        slide_table = origin.slide_table and find_again(origin.slide_table, self.folder)
        return origin._replace(labels=labels, slide_table=slide_table).read_cases()

    @property
    def origin(self) -> Origin | None:
        """The label table and the cache that the settings name; None without settings."""
        if not self.settings:
            return None
        return Origin.of(Run(self.folder, dict(self.settings), self.table, pd.DataFrame()))


def find_again(path: Path, folder: Path) -> Path:
    """Return a path of a run's settings, which is relative to where the run was started, as it is found now.

    A relative path is looked for in the folders that hold the run and, of a run that was moved, in the working folder.
    """
    run = folder.resolve()
    found = [place / path for place in (*run.parents, Path.cwd()) if (place / path).exists()]
    return next((one for one in found if one != run), path)  # data/ may have the name of the run, runs/data/


def _settings_of(folder: Path) -> Mapping[str, Any]:
    """Return the settings of a run; none of a folder that ``predict`` wrote."""
    if not any((folder / name).is_file() for name in ("fit.yaml", "test.yaml")):
        return {}
    return read_settings(folder)


def _most_wrong_first(rows: pd.DataFrame, task: str, folder: Path) -> pd.DataFrame:
    """Return the rows with their correctness, which is NaN where the truth is unknown; the least correct first."""
    known = rows[_has_truth(rows, task)].copy()
    if known.empty:
        return rows.assign(correctness=float("nan"))
    if task == "multi_label":
        classes = [name.removeprefix("label_") for name in columns_named("label_", known)]
        known["label"] = [in_words(classes, row) for row in known[columns_named("label_", known)].to_numpy()]
    try:
        judged = case_table([Run(folder, {}, known, pd.DataFrame())])
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"{folder / 'predictions.csv'} cannot be read ({error}); test or predict again") from error
    rest = rows[~rows.index.isin(judged.index)]
    return pd.concat([judged.drop(columns="run"), rest.assign(correctness=float("nan"))])


def _has_truth(rows: pd.DataFrame, task: str) -> pd.Series:
    """Return which cases have a truth that predictions can be compared with."""
    if task == "multi_label":
        labels = columns_named("label_", rows)
        same = [name.removeprefix("label_") for name in labels] == _classes(rows)
        return rows[labels].notna().any(axis=1) & (same and bool(labels))
    if task == "survival":
        needed = ["time", "event", "risk"]
    elif task == "regression":
        needed = ["value", "predicted_value"]
    else:
        return rows["label"].isin(_classes(rows)) if "label" in rows else pd.Series(False, rows.index)
    if set(needed) <= set(rows):
        return rows[needed].notna().all(axis=1)
    return pd.Series(False, rows.index)


def _classes(rows: pd.DataFrame) -> list[str]:
    return [name.removeprefix("probability_") for name in columns_named("probability_", rows)]
