"""The questions of the audit for shortcuts: what may predict what."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from e2e_abmilx.cohort import Case
from e2e_abmilx.evaluation.shortcuts import (
    FEWEST_COUNTED,
    Truth,
    classes_as_truth,
    martingale_residuals,
    refuse_uninformative,
    strata_of,
    survival_as_truth,
    values_as_truth,
)
from e2e_abmilx.evaluation.smoothers import Smoother, category_means, combine, draw_folds, ridge
from e2e_abmilx.reports.audited import Audited
from e2e_abmilx.reports.groups import UNKNOWN
from e2e_abmilx.reports.measures import classes_of, has_multi_labels, is_regression
from e2e_abmilx.runs.read import Run

COLOURS, EMBEDDINGS = "colour statistics", "embeddings"


class Question(NamedTuple):
    """Whether one thing predicts another.

    Attributes:
        source: Name of a column, `COLOURS` or `EMBEDDINGS`.
        target: The truth, such as ``"label"``, or the column that the embeddings predict.
        cases: Number of cases, one per patient.
        own: Name of the measure of a report that tells how well the model predicts the target; empty for a column.
        pose: Returns a prediction and the truth, or raises a :class:`~e2e_abmilx.evaluation.shortcuts.TooFewError`.
    """

    source: str
    target: str
    cases: int
    own: str
    pose: Callable[[], tuple[Smoother, Truth]]


class _Target(NamedTuple):
    """A truth of the cohort: its name, its measure in a report, and the cases of known truth with this truth."""

    name: str
    measure: str
    known: dict[str, Any]

    def of(self, cases: Sequence[str], fold: NDArray[np.int64]) -> Truth:
        values = [self.known[case] for case in cases]
        if self.measure == "spearman":
            return values_as_truth(values)
        if self.measure == "c_index":
            return survival_as_truth([time for time, _ in values], [event for _, event in values])
        return classes_as_truth(list(map(str, values)), fold)


def ask(material: Audited, runs: Sequence[Run]) -> Iterator[Question]:
    """Yield the questions: columns and colours as predictors, then columns as predicted by the embeddings."""
    for target in _targets(material.cases, runs[0].predictions):
        for column in map(str, material.columns):
            yield _ask_column(material.columns[column], target)
        if not material.colours.empty:
            yield _ask_colours(material.colours, target)
    tables = [table for table in material.embeddings if len(table) >= FEWEST_COUNTED]
    if tables:
        for column in map(str, material.columns):
            yield _ask_embeddings(tables, material.columns[column], runs)


def _ask_column(column: pd.Series, target: _Target) -> Question:
    cases = list(target.known)
    values = column.loc[cases].to_numpy(str)

    def pose() -> tuple[Smoother, Truth]:
        fold = draw_folds(len(cases))
        truth = target.of(cases, fold)
        refuse_uninformative(values)
        return category_means(values, fold), truth

    return Question(str(column.name), target.name, len(cases), target.measure, pose)


def _ask_colours(colours: pd.DataFrame, target: _Target) -> Question:
    cases = [case for case in target.known if case in colours.index]

    def pose() -> tuple[Smoother, Truth]:
        fold = draw_folds(len(cases))
        truth = target.of(cases, fold)
        return ridge(colours.loc[cases].to_numpy(), fold), truth

    return Question(COLOURS, target.name, len(cases), target.measure, pose)


def _ask_embeddings(tables: Sequence[pd.DataFrame], column: pd.Series, runs: Sequence[Run]) -> Question:
    """Ask within strata of a run and a class; each run has embeddings of its own, which its own regression reads."""
    cases = [case for table in tables for case in table.index]
    run = np.repeat(np.arange(len(tables)), list(map(len, tables)))
    values = column.reindex(cases).fillna(UNKNOWN).to_numpy(str)

    def pose() -> tuple[Smoother, Truth]:
        predictions = pd.concat([one.predictions for one in runs])
        labels = _strata(predictions[~predictions.index.duplicated()].loc[cases])
        folds = [draw_folds(len(table)) for table in tables]
        truth = classes_as_truth(values, np.concatenate(folds), run * (labels.max() + 1) + labels)
        parts = [
            (ridge(table.to_numpy(np.float64), fold), run == number)
            for number, (table, fold) in enumerate(zip(tables, folds, strict=True))
        ]
        return combine(parts), truth

    return Question(EMBEDDINGS, str(column.name), len(cases), "", pose)


def _strata(tested: pd.DataFrame) -> NDArray[np.int64]:
    """Return the class of each case; of survival and of values, a stratum of similar cases; shape ``(n,)``."""
    if is_regression(tested):
        return strata_of(tested["value"].to_numpy(np.float64))
    if "risk" in tested:
        return strata_of(martingale_residuals(tested["time"].to_numpy(np.float64), tested["event"].to_numpy(np.int64)))
    return np.unique(tested["label"].to_numpy(str), return_inverse=True)[1]


def _targets(cases: Sequence[Case], predictions: pd.DataFrame) -> Iterator[_Target]:
    if not cases:
        return
    if is_regression(predictions):
        yield _Target("value", "spearman", {case.id: case.value for case in cases if not math.isnan(case.value)})
    elif "risk" in predictions:
        known = {case.id: (case.time, case.event) for case in cases if not math.isnan(case.time)}
        yield _Target("survival", "c_index", known)
    elif has_multi_labels(predictions):
        names = classes_of(predictions)
        for number, name in enumerate(names):
            known_labels = {case.id: case.labels[number] for case in cases if case.labels[number] >= 0}
            yield _Target(name, f"auc_{name}" if len(names) > 1 else "auc", known_labels)
    else:
        yield _Target("label", "auc", {case.id: case.label for case in cases if case.label})
