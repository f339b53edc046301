"""Label tables → cases: the slides of each case, its label, labels or survival, its split."""

import logging
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.cohort.label_tables import (
    TCGA_PATIENT,
    CohortError,
    Row,
    find_labels,
    open_table,
    recognise,
    rows_of,
    slide_name,
)

logger = logging.getLogger(__name__)

#: Days of a month, for tables that count days.
DAYS_PER_MONTH = 30.44

_LONGEST_MONTHS = 1200
_BITS = ("0", "1", "0.0", "1.0")  # as pandas writes a column that has gaps
_NOTES = {
    "time": " (months)",
    "days": f" (days, divided by {DAYS_PER_MONTH})",
    "event": " (1 = happened)",
    "censorship": " (1 = censored)",
}


class Case(NamedTuple):
    """One case of a cohort: what is classified, bootstrapped and split.

    Attributes:
        id: Name of the case (the patient).
        slides: Names of its slides, without file endings.
        label: Class as the table spells it, or an empty string.
        time: Months until the event or the end of observation; NaN where the table has none.
        event: 1 where the event happened, 0 where it was censored.
        split: ``"train"``, ``"val"``, ``"test"``, or an empty string.
        group: Cases of one group are never in two splits; the case itself by default, and the patient where the
            case is named by a TCGA barcode.
        labels: Of a multi-label cohort, for each class 1 where the case has it, 0 where not, -1 where unknown.
    """

    id: str
    slides: tuple[str, ...]
    label: str = ""
    time: float = math.nan
    event: int = 0
    split: str = ""
    group: str = ""
    labels: tuple[int, ...] = ()


def read_cohort(
    table: Path,
    *,
    columns: Mapping[str, str] | None = None,
    label_columns: Sequence[str] = (),
    slide_table: Path | None = None,
) -> list[Case]:
    """Read a label table: a CSV with one row a slide, or one row a case.

    Columns are recognised by their usual names (``COLUMNS``) and logged; every cell is read as text, so that ids
    keep their zeros. A cell may name several slides, parted by ``;``. Without a column of cases every slide is a
    case; without one of slides they are found by the name of the case. A row that says nothing new is left out and
    counted: a table oversampled by repeating rows gives each case once, and how often a case is drawn is the
    sampler's affair.

    Args:
        table: The CSV file.
        columns: The table's own names for ``slide``, ``case``, ``label``, ``time`` (months), ``days``, ``event``
            (1 = happened), ``censorship`` (1 = censored), ``split`` or ``group`` where they are not the usual ones.
        label_columns: The table's columns of 1, 0 or, where it is unknown, nothing: one a class of a multi-label
            cohort.
        slide_table: A second CSV, of cases and their slides, where ``table`` has cases only.

    Raises:
        CohortError: The file, a column or a row is missing or contradicts another.
    """
    with open_table(table) as (header, lines):
        names = recognise(header, table, columns or {}) | find_labels(label_columns, header, table)
        rows = [(_parse_row(row), row.where) for row in rows_of(lines, names, table)]
    if not rows:
        raise CohortError(f"{table} has no rows below its header; a row is a slide with its label")
    if slide_table is not None:
        rows = _add_slides(rows, table, slide_table)
    cases, repeated = _merge(rows)
    found = [f"{name} from {header[index]!r}{_NOTES.get(name, '')}" for name, index in names.items()]
    found += [] if "case" in names else ["every slide is a case"]
    found += [f"{repeated} repeated rows left out"] if repeated else []
    count = sum(len(case.slides) for case in cases)
    logger.info("%s: %d cases with %d slides; %s", table, len(cases), count, ", ".join(found))
    return cases


def _merge(rows: Sequence[tuple[Case, str]]) -> tuple[list[Case], int]:
    """Join the rows of each case; also count the rows that say nothing new."""
    cases: dict[str, Case] = {}
    places: dict[str, str] = {}
    owners: dict[str, str] = {}
    repeated = 0
    for case, where in rows:
        first, place = cases.setdefault(case.id, case), places.setdefault(case.id, where)
        _refuse_contradiction(first, case, place, where)
        new = [slide for slide in case.slides if slide not in owners]
        repeated += not new
        owners.update(dict.fromkeys(new, case.id))
        stolen = next((slide for slide in case.slides if owners[slide] != case.id), None)
        if stolen:
            raise CohortError(
                f"{where}: slide {stolen} belongs to case {owners[stolen]} and to case {case.id}; a slide has one case"
            )
        cases[case.id] = first._replace(slides=tuple(dict.fromkeys(first.slides + case.slides)))
    return list(cases.values()), repeated


def _parse_row(row: Row) -> Case:
    cells = row.cells
    slides = cells["slide"] if "slide" in cells else cells["case"]
    names = [slide_name(name) for name in slides.split(";") if name.strip()]
    case = cells["case"] if "case" in cells else ";".join(names)
    if not names or not all((case, *names)):
        raise CohortError(f"{row.where}: the slide or case is empty; every row names both")
    patient = TCGA_PATIENT.match(case)
    time, event = _parse_survival(row)
    return Case(
        id=case,
        slides=tuple(dict.fromkeys(names)),
        label=cells.get("label", ""),
        time=time,
        event=event,
        split=cells.get("split", "").lower(),
        group=cells.get("group") or (patient[0] if patient else case),
        labels=tuple(_parse_label(row, name) for name in cells if name.startswith("label_")),
    )


def _parse_label(row: Row, name: str) -> int:
    text = row.cells[name]
    if text not in ("", *_BITS):
        raise CohortError(
            f"{row.where}: {name.removeprefix('label_')} {text!r} is neither 1 (the case has it) nor 0 (it has not);"
            " write one of these, or nothing where it is unknown"
        )
    return int(float(text)) if text else -1


def _parse_survival(row: Row) -> tuple[float, int]:
    """Months and event; NaN and 0 where the row knows neither."""
    name, unit = ("days", "days") if "days" in row.cells else ("time", "months")
    text, event = row.cells.get(name, ""), _parse_event(row)
    if not text and event is None:
        return math.nan, 0
    if not text or event is None:
        empty, other = ("event", "time") if text else ("time", "event")
        raise CohortError(
            f"{row.where}: the {empty} is empty and the {other} is not; fill in both, or neither"
        )
    try:
        months = float(text) / (DAYS_PER_MONTH if unit == "days" else 1)
    except ValueError:
        cure = "write a decimal point" if re.fullmatch(r"\d+,\d+", text) else "correct it"
        raise CohortError(f"{row.where}: time {text!r} is not a number of {unit}; {cure}") from None
    if months < 0 or not math.isfinite(months):
        raise CohortError(
            f"{row.where}: time {text!r} is negative or not finite; {unit} count from 0 upwards"
        )
    if months > _LONGEST_MONTHS:
        raise CohortError(
            f"{row.where}: time {text!r} is {months / 12:.0f} years if it counts {unit}; correct it, or if the column"
            " counts days say so with columns: {days: NAME}"
        )
    return months, event


def _parse_event(row: Row) -> int | None:
    events = {}
    for name, happened in (("event", 1.0), ("censorship", 0.0)):
        text = row.cells.get(name, "")
        if text and text not in _BITS:
            meaning = "1 (happened) nor 0 (censored)" if happened else "1 (censored) nor 0 (happened)"
            raise CohortError(f"{row.where}: {name} {text!r} is neither {meaning}; write one of these")
        if text:
            events[name] = int(float(text) == happened)
    if len(set(events.values())) > 1:
        raise CohortError(
            f"{row.where}: event {row.cells['event']} and censorship {row.cells['censorship']} contradict each other;"
            " correct one, or state the right one with columns: {event: NAME} or {censorship: NAME}"
        )
    return next(iter(events.values()), None)


def _refuse_contradiction(first: Case, other: Case, where: str, other_where: str) -> None:
    line = other_where.rpartition(":")[2]
    for name, problem in (
        ("split", "is in two splits"),
        ("label", "has two labels"),
        ("labels", "has two sets of labels"),
        ("time", "has two times"),
        ("event", "has two events"),
        ("group", "is in two groups"),
    ):
        # repr: NaN equals NaN
        one, two = repr(getattr(first, name)), repr(getattr(other, name))
        if one != two:
            raise CohortError(
                f"{where} and :{line}: case {first.id} {problem} ({one} and {two}); all rows of a case agree"
            )


def _add_slides(rows: Sequence[tuple[Case, str]], table: Path, slide_table: Path) -> list[tuple[Case, str]]:
    """Give each row the slides that another table has of its case; leave out rows without any."""
    slides: dict[str, tuple[str, ...]] = defaultdict(tuple)
    with open_table(slide_table) as (header, lines):
        names = recognise(header, slide_table, {})
        if not {"slide", "case"} <= names.keys():
            raise CohortError(f"{slide_table} must have a column of cases and one of slides; it has {header}")
        for case in map(_parse_row, rows_of(lines, names, slide_table)):
            slides[case.id] += case.slides
    without = list(dict.fromkeys(case.id for case, _ in rows if case.id not in slides))
    others = sorted(slides.keys() - {case.id for case, _ in rows})
    for one, other, names_there in ((table, slide_table, without), (slide_table, table, others)):
        if names_there:
            logger.warning(
                "%s: %d cases are not in %s: %s", one, len(names_there), other, ", ".join(names_there)
            )
    if len(others) == len(slides):
        raise CohortError(f"{table} and {slide_table} have no case in common; both must spell cases alike")
    return [(case._replace(slides=slides[case.id]), where) for case, where in rows if case.id in slides]
