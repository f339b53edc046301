"""The content of a report on an external cohort, as tables, text, CSV and JSON."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from e2e_abmilx.evaluation.bootstrap import Estimate
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.reports.groups import FEWEST_CASES, Group
from e2e_abmilx.reports.page_table import Table
from e2e_abmilx.reports.stored_measures import StoredMeasures
from e2e_abmilx.reports.tables import align, plain, with_interval
from e2e_abmilx.reports.validation import Validated

_MOST_UNDEFINED = 0.05  # fraction of the resamples; more are mentioned
_COLUMNS = ["measure", "cohort", "column", "group", "cases", "value", "low", "high"]


class ExternalReport(NamedTuple):
    """The content of a report on an external cohort.

    Attributes:
        title: Title of the page.
        facts: Name and value of what a reader must know of model and cohorts.
        internal: Predictions or measures of the internal test; None if there is none.
        validated: The measures of both cohorts.
        groups: The groups of external cases, column by column.
    """

    title: str
    facts: Sequence[tuple[str, object]]
    internal: pd.DataFrame | StoredMeasures | None
    validated: Validated
    groups: list[Group]

    @property
    def sizes(self) -> dict[str, int]:
        """The number of cases of each cohort."""
        internal = self.internal
        cases = (
            {}
            if internal is None
            else {"internal": internal.cases if isinstance(internal, StoredMeasures) else len(internal)}
        )
        return cases | {"external": len(self.validated.external)}


def measure_table(report: ExternalReport) -> Table:
    """Return the measures of both cohorts and their difference."""
    columns = ["internal", "external", "difference"] if report.internal is not None else ["external"]
    heads = [
        f"{name} (n = {report.sizes[name]})" if name in report.sizes else "external − internal" for name in columns
    ]
    rows = []
    for name, measure in report.validated.measures.items():
        cells = [getattr(report.validated.values[name], column) for column in columns]
        rows.append([measure.title, *(_cell(one) for one in cells)])
    return Table("Measures, with 95 % intervals", ["measure", *heads], rows)


def group_tables(report: ExternalReport) -> list[Table]:
    """Return one table per column of groups."""
    columns: dict[str, list[Group]] = {}
    for group in report.groups:
        columns.setdefault(group.column, []).append(group)
    return [_group_table(column, groups, report.validated) for column, groups in columns.items()]


def explanations(report: ExternalReport) -> Iterator[str]:
    """Explain intervals, differences and dashes."""
    n_resamples = next(iter(report.validated.values.values())).external.n_resamples
    yield f"95 %: percentiles of {n_resamples} bootstrap resamples of cases"
    if isinstance(report.internal, StoredMeasures):
        yield (
            "external − internal: 95 % intervals by a normal approximation from the standard deviations of both, because"
            " the model carries measures of its internal test and no predictions; rough for slopes and O/E"
        )
    elif report.internal is not None:
        yield "external − internal: each cohort is resampled by itself"
    yield from _cautions(report.validated)
    if not report.groups:
        yield "–: not defined"
        return
    yield (
        f"–: not defined; of groups also if they have fewer than {FEWEST_CASES} cases, cases of one class only or no event."
        " The intervals of groups are not corrected for their number"
    )


def _cautions(validated: Validated) -> Iterator[str]:
    """Warn of intervals that look more certain than they are."""
    shown = [
        (validated.measures[name].title, one)
        for name, values in validated.values.items()
        for one in (values.internal, values.external)
        if one is not None and not math.isnan(one.point)
    ]
    if any(one.low == one.high for _, one in shown):
        yield "an interval of width 0 means that all resamples agree, not that the value is certain"
    for title, one in shown:
        if one.undefined > _MOST_UNDEFINED * one.n_resamples:
            yield f"{title}: undefined in {one.undefined} of {one.n_resamples} resamples, which its interval leaves out"


def text(report: ExternalReport) -> str:
    """Return the tables for a terminal, followed by the meaning of their columns."""
    facts = "\n".join(f"{name}: {value}" for name, value in report.facts)
    tables = [
        f"{one.caption}\n{align([[str(cell) for cell in row] for row in (one.head, *one.rows)])}"
        for one in (measure_table(report), *group_tables(report))
    ]
    definitions = [f"{one.title}: {one.definition}" for one in report.validated.measures.values()]
    last = "\n".join([*explanations(report), *definitions, *report.validated.notes])
    return "\n\n".join(part for part in (report.title, facts, *tables, last) if part)


def write_csv(report: ExternalReport, path: Path) -> None:
    """Write one row per number: ``measure, cohort, column, group, cases, value, low, high``; undefined ones are empty.

    ``cohort`` is ``internal``, ``external`` or ``difference``. The rows of a group have its column and value; among them
    are the numbers of its cases of each class or with an event, ``cases_<class>`` or ``cases_events``.
    """
    with atomic_write(path) as partial:
        pd.DataFrame(_rows(report), columns=_COLUMNS, dtype=object).to_csv(partial, index=False, lineterminator="\n")


def write_json(report: ExternalReport, path: Path) -> None:
    """Write the whole report; undefined numbers are null."""
    measures = {
        name: {"title": one.title, "definition": one.definition, **plain(report.validated.values[name])}
        for name, one in report.validated.measures.items()
    }
    content = {
        "title": report.title,
        "facts": [{"name": name, "value": str(value)} for name, value in report.facts],
        "cases": report.sizes,
        "measures": measures,
        "groups": [plain(group) for group in report.groups],
        "notes": report.validated.notes,
    }
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def _group_table(column: str, groups: Sequence[Group], validated: Validated) -> Table:
    first = groups[0]
    titles = [validated.measures[name].title for name in first.estimates]
    rows = [
        [group.value, group.cases, *group.counts.values(), *map(_cell, group.estimates.values())] for group in groups
    ]
    return Table(f"External cases by {column}", [column, "cases", *first.counts, *titles], rows)


def _cell(value: Estimate | None) -> str:
    return "–" if value is None else with_interval(value)


def _rows(report: ExternalReport) -> Iterator[dict[str, object]]:
    for name, values in report.validated.values.items():
        for cohort, one in values._asdict().items():
            if one is not None:
                yield {"measure": name, "cohort": cohort, "cases": report.sizes.get(cohort), **_numbers(one)}
    for group in report.groups:
        about = {"cohort": "external", "column": group.column, "group": group.value, "cases": group.cases}
        for name, count in group.counts.items():
            yield {**about, "measure": f"cases_{name}", "value": count}
        for name, one in group.estimates.items():
            yield {**about, "measure": name, **_numbers(one)}


def _numbers(one: Estimate) -> dict[str, float]:
    return {"value": one.point, "low": one.low, "high": one.high}
