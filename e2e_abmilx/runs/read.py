"""Finished runs, read from their folders."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.old_names import new_metric


class Run(NamedTuple):
    """A run whose test is finished.

    Attributes:
        folder: Folder of the run.
        settings: Content of ``fit.yaml``.
        predictions: One row per test case, indexed by case. Columns ``label`` and ``probability_<class>``; of several
            labels per case also ``label_<class>`` (1, 0, or NaN where it is unknown), which ``label`` lists in words;
            or ``time`` (months), ``event`` (1 = happened), ``risk`` and, of a discrete-time model,
            ``survival_<months>``, the probability of surviving the end of each time bin but the last; or ``value`` and
            ``predicted_value`` of a regression; and
            ``threshold``, which was fitted on the run's validation cases, NaN where none was recorded.
        splits: One row per case of the cohort, indexed by case, from ``splits.csv``. Columns ``split`` and, of a
            survival model, ``time`` and ``event``; empty where no splits were recorded.
    """

    folder: Path
    settings: dict[str, Any]
    predictions: pd.DataFrame
    splits: pd.DataFrame

    @property
    def data(self) -> dict[str, Any]:
        """The settings of the data module."""
        settings: dict[str, Any] = self.settings["data"]["init_args"]
        return settings


def is_finished(folder: Path) -> bool:
    """Return whether the run in a folder has finished its test.

    A run writes ``predictions.csv`` when it has tested every case, and then the test's row of ``metrics.csv``. A run
    with another logger has no ``metrics.csv``.
    """
    metrics = folder / "metrics.csv"
    return (folder / "predictions.csv").is_file() and (not metrics.is_file() or bool(read_test_metrics(folder)))


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """Return the folders of runs; the folder of a cross-validation is replaced by those of its folds.

    Raises:
        InputError: A folder holds neither a tested run nor folds, or is named twice.
    """
    runs: list[Path] = []
    for folder in folders:
        folds = sorted(folder.glob("fold-*"), key=lambda fold: (len(fold.name), fold.name))  # 2 before 10
        found = [folder] if (folder / "predictions.csv").is_file() else folds
        if not found:
            raise InputError(
                f"{folder} holds no predictions.csv and no fold-0, fold-1, …; name runs whose test is finished"
            )
        twice = {path.resolve() for path in found} & {path.resolve() for path in runs}
        if twice:
            raise InputError(f"{min(twice)} is named twice; name each run once")
        runs += found
    return runs


def read_run(folder: Path) -> Run:
    """Read a run.

    Raises:
        InputError: A file is missing or damaged, or a tested case is not in the run's test split.
    """
    predictions = read_predictions(folder / "predictions.csv")
    recorded = read_test_metrics(folder)
    predictions["threshold"] = float(recorded.get("test/threshold", math.nan))
    run = Run(folder, read_settings(folder), predictions, _read_splits(folder / "splits.csv"))
    _refuse_leaks(run)
    return run


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the settings of a run, or of a test in the folder that the command test writes.

    Raises:
        InputError: There is neither ``fit.yaml`` nor ``test.yaml``, or it is not a config of this package.
    """
    named = (folder / "fit.yaml", folder / "test.yaml")
    path = next((path for path in named if path.is_file()), named[0])
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; name a folder that `e2e-abmilx fit` wrote") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML ({error}); restore it, or run the fit again") from error
    if not isinstance(settings, dict) or "init_args" not in (settings.get("data") or {}):
        raise InputError(f"{path} has no settings data.init_args; name a folder that `e2e-abmilx fit` wrote")
    return settings


def columns_named(prefix: str, table: pd.DataFrame) -> list[str]:
    """Return the names of the columns that start with a prefix, in their order."""
    return [name for name in map(str, table) if name.startswith(prefix)]


def in_words(classes: Sequence[str], labels: Iterable[float]) -> str:
    """List the classes that a case has, and with a question mark those that are unknown.

    >>> in_words(["ER", "PR", "HER2"], [1, 0, math.nan])
    'ER, HER2?'
    """
    named = zip(classes, labels, strict=True)
    return ", ".join(name + "?" * math.isnan(label) for name, label in named if label) or "none"


def read_test_metrics(folder: Path) -> dict[str, str]:
    """Return the metrics of the test in ``metrics.csv``, by name; empty if its last row is another one or incomplete."""
    path = folder / "metrics.csv"
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        last = [{}, *csv.DictReader(file)][-1]
    if None in last.values():
        return {}
    return {new_metric(name): value for name, value in last.items() if name.startswith("test/") and value}


def read_metrics(folder: Path) -> pd.DataFrame:
    """Return ``metrics.csv``, with its columns under their present names; an empty table if a run has none."""
    path = folder / "metrics.csv"
    return pd.read_csv(path).rename(columns=new_metric) if path.is_file() else pd.DataFrame()


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a table of predictions, in the form of :attr:`Run.predictions` except for the threshold.

    Raises:
        InputError: It is missing, or has other columns, invalid values or two rows of a case.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing; a run writes it at the end of its test, so let it finish")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "case" not in table or not (_is_survival(table) or _is_regression(table) or _has_labels(table)):
        raise InputError(
            f"{path} has the columns {', '.join(map(str, table))}; a report needs case, label and probability_<class>,"
            " or case, label_<class> and probability_<class>, or case, time, event and risk, or case, value and"
            " predicted_value"
        )
    if table["case"].duplicated().any():
        case = table["case"][table["case"].duplicated()].iloc[0]
        raise InputError(f"{path} has two rows of case {case}; a case is tested once, so test again")
    return _parse_numbers(table.set_index("case"), path)


def _parse_numbers(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Parse predictions that were read as text, and refuse invalid values."""
    classes, labels, numbers = _classes("probability_", table), list[str](), columns_named("probability_", table)
    if _is_survival(table):
        numbers = ["time", "event", "risk", *columns_named("survival_", table)]
    elif _is_regression(table):
        numbers = ["value", "predicted_value"]
    else:
        labels = columns_named("label_", table)
    table[numbers] = table[numbers].map(_parse)
    invalid = table[numbers].isna().any(axis=1)
    if labels:
        invalid |= ~table[labels].isin(["1", "0", ""]).all(axis=1)
    elif numbers == columns_named("probability_", table):
        invalid |= ~table["label"].isin(classes)
    if invalid.any():
        raise InputError(
            f"{path}: {invalid.sum()} of {len(table)} cases, first {table.index[invalid][0]}, have a label that is not"
            " one of the classes, or text where a number is needed; correct the label table and test again"
        )
    if labels:
        table[labels] = table[labels].map(_parse)
        table["label"] = [in_words(classes, row) for row in table[labels].to_numpy()]
    return table


def _is_survival(table: pd.DataFrame) -> bool:
    return {"time", "event", "risk"} <= set(table)


def _is_regression(table: pd.DataFrame) -> bool:
    return {"value", "predicted_value"} <= set(table)


def _has_labels(table: pd.DataFrame) -> bool:
    """Return whether there is a label, or one per class, next to the probabilities."""
    classes, labelled = _classes("probability_", table), _classes("label_", table)
    return labelled == classes if labelled else "label" in table and len(classes) > 1


def _classes(prefix: str, table: pd.DataFrame) -> list[str]:
    return [name.removeprefix(prefix) for name in columns_named(prefix, table)]


def _read_splits(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame(columns=["split"])
    return pd.read_csv(path, dtype={"case": str, "split": str}, keep_default_na=False).set_index("case")


def _refuse_leaks(run: Run) -> None:
    if run.splits.empty:
        return
    splits = run.splits["split"].reindex(run.predictions.index, fill_value="none")
    leaked = splits[splits != "test"]
    if len(leaked):
        raise InputError(
            f"{run.folder}: {len(leaked)} tested cases are in another split of splits.csv, first {leaked.index[0]}"
            f" ({leaked.iloc[0]}); predictions of cases that a model was trained on do not estimate its performance, so"
            " fit again with splits that keep them apart"
        )


def _parse(text: str) -> float:
    """Return the number exactly as Python reads it; NaN for other text."""
    try:
        return float(text)
    except ValueError:
        return math.nan
