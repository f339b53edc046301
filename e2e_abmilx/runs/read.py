"""Finished runs, read back from their folders."""


import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
import pandas as pd
import yaml
from e2e_abmilx.errors import InputError



class Run(NamedTuple):
    """A run that ended with its test.

    Attributes:
        folder: Where its files are.
        settings: What ``fit.yaml`` holds.
        predictions: A row a test case, by its name. Columns ``label`` and ``probability_<class>``; of several labels
            a case also ``label_<class>`` (1, 0 or, where it is unknown, NaN), all of which ``label`` then has in words;
            or ``time`` (months), ``event`` (1 = happened), ``risk`` and, of a model of discrete time,
            ``survival_<months>``, the probability of surviving the end of each time bin but the last; and
            ``threshold``, which the run fitted on its validation cases, NaN where it recorded none.
        splits: A row a case of the cohort, by its name, from ``splits.csv``. Columns ``split`` and, of a survival
            model, ``time`` and ``event``; empty where the run recorded none.
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
    """Whether the run in a folder has ended with its test.

    A run writes ``predictions.csv`` when it has tested every case, and the test's row of ``metrics.csv`` after that.
    A run whose logger is another one has no ``metrics.csv``.
    """
    metrics = folder / "metrics.csv"
    return (folder / "predictions.csv").is_file() and (
        not metrics.is_file() or bool(read_test_metrics(folder))
    )


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """Return the folders, with the folds of a cross-validation in place of its own.

    Raises:
        InputError: A folder holds neither a tested run nor folds, or is named twice.
    """
    runs: list[Path] = []
    for folder in folders:
        folds = sorted(folder.glob("fold-*"), key=_number)
        found = [folder] if (folder / "predictions.csv").is_file() else folds
        if not found:
            raise InputError(
                f"{folder} holds no predictions.csv and no fold-0, fold-1, …; name runs that ended with their test"
            )
        twice = {path.resolve() for path in found} & {path.resolve() for path in runs}
        if twice:
            raise InputError(f"{min(twice)} is named twice; a run counts once")
        runs += found
    return runs


def read_run(folder: Path) -> Run:
    """Read a run.

    Raises:
        InputError: A file is missing or damaged, or a tested case is not in the run's test split.
    """
    predictions = _read_predictions(folder / "predictions.csv")
    recorded = read_test_metrics(folder)
    predictions["threshold"] = float(recorded.get("test/threshold", math.nan))
    run = Run(folder, read_settings(folder), predictions, _read_splits(folder / "splits.csv"))
    _refuse_leaks(run)
    return run


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the settings that a run was made with; in the folder of a test by itself, those of the test.

    Raises:
        InputError: There is neither ``fit.yaml`` nor ``test.yaml``, or it is none of ours.
    """
    named = (folder / "fit.yaml", folder / "test.yaml")
    path = next((path for path in named if path.is_file()), named[0])
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; name a folder that `e2e-abmilx fit` wrote") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML ({error}); restore it, or run the fit again") from error
    if not isinstance(settings, dict) or "init_args" not in (settings.get("data") or {}):
        raise InputError(f"{path} has no settings data.init_args; name a folder that `e2e-abmilx fit` wrote")
    return settings


def columns_named(prefix: str, table: pd.DataFrame) -> list[str]:
    """Return the names of columns that begin so, in their order."""
    return [name for name in map(str, table) if name.startswith(prefix)]


def in_words(classes: Sequence[str], labels: Iterable[float]) -> str:
    """Return the classes that a case has, and with a question mark those that are unknown.

    >>> in_words(["ER", "PR", "HER2"], [1, 0, math.nan])
    'ER, HER2?'
    """
    named = zip(classes, labels, strict=True)
    return ", ".join(name + "?" * math.isnan(label) for name, label in named if label) or "none"


def _read_predictions(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path} is missing; a run writes it at the end of its test, so let it finish")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    kind = _kind_of(table)
    if kind is None or "case" not in table:
        raise InputError(
            f"{path} has the columns {', '.join(map(str, table))}; a report is made of case, label and"
            " probability_<class>, of case, label_<class> and probability_<class>, or of case, time, event and risk"
        )
    if table["case"].duplicated().any():
        case = table["case"][table["case"].duplicated()].iloc[0]
        raise InputError(f"{path} has two rows of case {case}; a case is tested once, so test again")
    table = table.set_index("case")
    probabilities, labels = columns_named("probability_", table), columns_named("label_", table)
    survival = ["time", "event", "risk", *columns_named("survival_", table)]
    numbers = survival if kind == "survival" else probabilities
    table[numbers] = table[numbers].map(_parse)
    unknown = table[numbers].isna().any(axis=1)
    if kind == "classes":
        unknown |= ~table["label"].isin([name.removeprefix("probability_") for name in probabilities])
    if kind == "labels":
        unknown |= ~table[labels].isin(["1", "0", ""]).all(axis=1)
    if unknown.any():
        raise InputError(
            f"{path}: {unknown.sum()} of {len(table)} cases, first {table.index[unknown][0]}, have a label"
            " that is none of the classes, or no number where one must be; mend the label table and test"
            " again"
        )
    if kind == "labels":
        table[labels] = table[labels].map(_parse)
        classes = [name.removeprefix("label_") for name in labels]
        table["label"] = [in_words(classes, row) for row in table[labels].to_numpy()]
    return table


def _kind_of(table: pd.DataFrame) -> Literal["classes", "labels", "survival"] | None:
    classes, labels = (
        [name.removeprefix(prefix) for name in columns_named(prefix, table)]
        for prefix in ("probability_", "label_")
    )
    if {"time", "event", "risk"} <= set(table):
        return "survival"
    if labels:
        return "labels" if labels == classes else None
    return "classes" if "label" in table and len(classes) > 1 else None


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
            f"{run.folder}: {len(leaked)} tested cases are in another split of splits.csv, first"
            f" {leaked.index[0]} ({leaked.iloc[0]}); the prediction of a case that a model has seen says"
            " nothing of new ones, so fit again with splits that keep them apart"
        )


def read_test_metrics(folder: Path) -> dict[str, str]:
    """Return what ``metrics.csv`` says of the test, by name; nothing where its last row is not the test's, or not whole."""
    path = folder / "metrics.csv"
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        last: dict[str, str | None] = {}
        for last in csv.DictReader(file):  # noqa: B007 - only the last one counts
            pass
    if None in last.values():
        return {}
    return {name: value for name, value in last.items() if name.startswith("test/") and value}


def _parse(text: str) -> float:
    """The number, exactly as Python reads it; NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _number(folder: Path) -> int:
    number = folder.name.removeprefix("fold-")
    return int(number) if number.isdigit() else -1
