"""The content of a report on one or two sets of finished runs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from e2e_abmilx.errors import InputError
from e2e_abmilx.reports.brier import add_brier_scores, brier_horizon
from e2e_abmilx.reports.comparison import Comparison, compare_on_shared_cases
from e2e_abmilx.reports.measures import Measure, classes_of, has_multi_labels, is_regression, measures_of
from e2e_abmilx.reports.summary import Summary, pool, summarise
from e2e_abmilx.runs.read import Run


class Report(NamedTuple):
    """The content of a report.

    Attributes:
        measures: The measures, by name.
        summary: Of the runs.
        against: Summary of the runs that they are compared with.
        comparison: Comparison of both on the cases that both have tested.
        notes: Warnings that a reader needs to judge the numbers.
    """

    measures: dict[str, Measure]
    summary: Summary
    against: Summary | None
    comparison: Comparison | None
    notes: list[str]

    @property
    def summaries(self) -> dict[str, Summary]:
        """The summaries of a comparison as ``first`` and ``second``; a single one with an empty name."""
        return {"first": self.summary, "second": self.against} if self.against else {"": self.summary}

    @property
    def runs(self) -> list[Run]:
        """The runs of both sets."""
        return [run for summary in self.summaries.values() for run in summary.runs]


def make_report(runs: Sequence[Run], against: Sequence[Run] = ()) -> Report:
    """Measure at least one run, and compare them with runs of the same task if such are given.

    Raises:
        InputError: If the runs have different tasks or classes, or cannot be compared.
    """
    everything = [*runs, *against]
    _refuse_mixed_tasks(everything)
    horizon = brier_horizon(everything)
    if horizon is not None:
        everything = [add_brier_scores(run, horizon) for run in everything]
    runs, against = everything[: len(runs)], everything[len(runs) :]
    measures = measures_of(pool(everything))
    summary = summarise(runs, measures)
    others = summarise(against, measures) if against else None
    comparison = compare_on_shared_cases(runs, against, measures) if against else None
    notes = list(_notes(everything, [summary, *([others] if others else [])], horizon))
    return Report(measures, summary, others, comparison, notes)


def _notes(runs: Sequence[Run], summaries: Sequence[Summary], horizon: float | None) -> Iterator[str]:
    for summary in summaries:
        if summary.overlap:
            yield (
                f"not pooled: {summary.overlap}; for intervals over all cases report the folds of one"
                " cross-validation, or one run"
            )
        if any(spread.runs < len(summary.runs) for spread in summary.spread.values()):
            yield (
                "–: undefined, because a run lacks cases of a class, comparable pairs or different values; left out of the"
                " mean"
            )
    if horizon is not None:
        yield f"IBS: from 0 to {horizon:.4g} months, which every run predicts"
    unknown = [str(run.folder) for run in runs if run.splits.empty]
    if unknown:
        yield f"without splits.csv, so not checked for leaks: {', '.join(unknown)}"
    selected = [str(run.folder) for run in runs if run.data.get("select_on_test")]
    if selected:
        yield f"CHECKPOINTS SELECTED ON THE TEST CASES (select_on_test), so results are too good: {', '.join(selected)}"


def _refuse_mixed_tasks(runs: Sequence[Run]) -> None:
    kinds = [_kind(run.predictions) for run in runs]
    for run, kind in zip(runs, kinds, strict=True):
        if kind != kinds[0]:
            raise InputError(
                f"{runs[0].folder} predicts {kinds[0]} and {run.folder} {kind}; report runs of one task together"
            )


def _kind(predictions: pd.DataFrame) -> str:
    """Return what is predicted, in words."""
    if is_regression(predictions):
        return "a number"
    classes = " ".join(classes_of(predictions)) + ", several per case" * has_multi_labels(predictions)
    return f"the classes {classes}" if classes else "survival"
