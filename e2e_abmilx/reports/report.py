"""What finished runs say, and how sure that is."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from e2e_abmilx.errors import InputError
from e2e_abmilx.reports.brier import add_brier_scores, brier_horizon
from e2e_abmilx.reports.comparison import Comparison, compare
from e2e_abmilx.reports.measures import Measure, classes_of, has_multi_labels, measures_of
from e2e_abmilx.reports.summary import Summary, pool, summarise
from e2e_abmilx.runs.read import Run


class Report(NamedTuple):
    """What runs say.

    Attributes:
        measures: What is told of them, by name.
        summary: Of the runs.
        against: Of the runs that they are compared with.
        comparison: Of both, on the cases that both have tested.
        notes: What a reader must know to judge the numbers.
    """

    measures: dict[str, Measure]
    summary: Summary
    against: Summary | None
    comparison: Comparison | None
    notes: list[str]


def make_report(runs: Sequence[Run], against: Sequence[Run] = ()) -> Report:
    """Measure runs, and compare them with others where others are given.

    Args:
        runs: At least one run.
        against: Runs of the same task.

    Raises:
        InputError: The runs have different tasks or classes, or cannot be compared.
    """
    everything = [*runs, *against]
    _refuse_mixture(everything)
    horizon = brier_horizon(everything)
    if horizon is not None:
        everything = [add_brier_scores(run, horizon) for run in everything]
    runs, against = everything[: len(runs)], everything[len(runs) :]
    measures = measures_of(pool(everything))
    summary = summarise(runs, measures)
    others = summarise(against, measures) if against else None
    return Report(
        measures,
        summary,
        others,
        compare(runs, against, measures) if against else None,
        list(_notes(everything, [summary, *([others] if others else [])], horizon)),
    )


def _notes(runs: Sequence[Run], summaries: Sequence[Summary], horizon: float | None) -> Iterator[str]:
    for summary in summaries:
        if summary.overlap:
            yield (
                f"not pooled: {summary.overlap}; for intervals over all cases report the folds of one"
                " cross-validation, or one run"
            )
        if any(spread.runs < len(summary.runs) for spread in summary.spread.values()):
            yield "–: not defined, where a run has no case of some class or no comparable pair; left out of the mean"
    if horizon is not None:
        yield f"IBS: from 0 to {horizon:.4g} months, which every run predicts"
    unknown = [str(run.folder) for run in runs if run.splits.empty]
    if unknown:
        yield f"without splits.csv, so that leaks could not be looked for: {', '.join(unknown)}"
    selected = [str(run.folder) for run in runs if run.data.get("select_on_test")]
    if selected:
        yield f"CHECKPOINTS CHOSEN ON THE TEST CASES (select_on_test), so too good: {', '.join(selected)}"


def _refuse_mixture(runs: Sequence[Run]) -> None:
    kinds = [
        " ".join(classes_of(run.predictions)) + ", several a case" * has_multi_labels(run.predictions)
        or "those of survival"
        for run in runs
    ]
    for run, kind in zip(runs, kinds, strict=True):
        if kind != kinds[0]:
            raise InputError(
                f"{runs[0].folder} predicts the classes {kinds[0]} and {run.folder} {kind}; report runs of"
                " one task together"
            )
