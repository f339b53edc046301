"""Cases read from label tables: the slides of each case, its target and its split."""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from e2e_abmilx.cohort.entries import PATIENT_PREFIX, Case, Entry, parse_row
from e2e_abmilx.cohort.folds import settle_folds
from e2e_abmilx.cohort.label_tables import (
    CohortError,
    Row,
    find_column,
    find_patients,
    find_times,
    open_table,
    recognise,
    rows_of,
)
from e2e_abmilx.cohort.patients import Grouping, Identity, group_patients
from e2e_abmilx.cohort.spellings import plain_id, refuse_near_spellings
from e2e_abmilx.cohort.survival import DAYS_PER_MONTH, read_survival, refuse_doubtful_days
from e2e_abmilx.cohort.values import read_value

logger = logging.getLogger(__name__)

_NOTES = {
    "time": " (months)",
    "days": f" (days, divided by {DAYS_PER_MONTH})",
    "event": " (1 = happened)",
    "censorship": " (1 = censored)",
}
_TIME_PREFIX = "time of "  # of the cells of further columns of times, before the table's own name of the column

#: Kind of target: one class per case, several labels per case, time and event, or a number.
TargetKind = Literal["label", "multi_label", "survival", "regression"]


def read_cohort(
    table: Path,
    *,
    columns: Mapping[str, str | None] | None = None,
    label_columns: Sequence[str] = (),
    slide_table: Path | None = None,
    target: TargetKind | None = None,
) -> list[Case]:
    """Read a label table: a CSV with one row per slide or one row per case.

    Columns are recognised by their usual names (``COLUMNS``), and the log lists them. Cells are read as text, so ids
    keep leading zeros. A cell may name several slides, separated by ``;``. Without a case column, every slide is a
    case; without a slide column, slides are found by the name of the case. Rows without new information are left out
    and counted: an oversampled table gives each case once, since the sampler decides how often a case is drawn.

    Cases of one patient form one group. Patients are known from a patient column next to the case column, and from
    TCGA, CPTAC and GTEx barcodes; the log states which of them was decisive.

    Args:
        table: The CSV file.
        columns: The table's own names for the keys of ``COLUMNS``, where they differ from the usual names; None for a
            column that must not be read. A time is in months, an event is 1 if it happened, a censorship if it did not.
        label_columns: Columns of a multi-label cohort, one per class, that hold 1, 0 or, where unknown, nothing.
        slide_table: A second CSV of cases and their slides, where ``table`` has cases only.
        target: Kind of target. Times and events are read for ``"survival"``. By default they are read if they are
            valid, and must be valid only in a table without labels. For ``"regression"`` the label column is read as
            numbers.

    Raises:
        CohortError: The file, a column or a row is missing, contradictory or ambiguous.
    """
    stated = {name: _stated_column(column) for name, column in (columns or {}).items()}
    entries, titles = _read_entries(table, stated, label_columns, target)
    identities = [Identity(row.case.id, row.case.slides, row.case.group, row.patients) for row in entries]
    if slide_table is not None:
        entries, further = _add_slides(entries, table, slide_table)
        identities += further
    grouping = group_patients(identities, table)
    cases, repeated = _merge(entries)
    cases = [case._replace(group=grouping.groups[case.id]) for case in cases]
    found = [f"{name} from {title!r}{_NOTES.get(name, '')}" for name, title in titles.items()]
    found += [] if "case" in titles else ["every slide is a case"]
    found += _describe(grouping, titles)
    found += [f"{repeated} repeated rows left out"] if repeated else []
    count = sum(len(case.slides) for case in cases)
    logger.info("%s: %d cases with %d slides; %s", table, len(cases), count, ", ".join(found))
    return cases


def _read_entries(
    table: Path, stated: Mapping[str, str | None], label_columns: Sequence[str], target: TargetKind | None
) -> tuple[list[Entry], dict[str, str]]:
    """Return the rows of a table, and the table's names of the columns that are read, by our names."""
    with open_table(table) as (header, lines):
        names = recognise(header, table, stated, survival=target in (None, "survival"))
        patients = find_patients(header, names, stated)
        further_times = {} if {"time", "days"} & stated.keys() else find_times(header, names)
        columns = names | {f"label_{name}": find_column(name, header, table, "a class") for name in label_columns}
        columns |= {PATIENT_PREFIX + name: index for name, index in patients.items()}
        columns |= {_TIME_PREFIX + name: index for name, (index, _) in further_times.items()}
        rows = list(rows_of(lines, columns, table))
    if not rows:
        raise CohortError(f"{table} has no rows below its header; a row describes a slide or a case")
    titles = {name: header[index] for name, index in names.items()}
    entries = [parse_row(row, titles.get("patient", "")) for row in rows]
    if target == "regression":
        entries = [_read_value(entry) for entry in entries]
    if {"time", "days"} & names.keys():
        units = {name: unit for name, (_, unit) in further_times.items()}
        asked = target == "survival" or "label" not in names
        days = "" if "days" in stated else titles.get("days", "")
        entries = _add_survival(entries, rows, units, asked=asked, days=days)
        if not any(math.isfinite(entry.case.time) for entry in entries):
            titles = {name: title for name, title in titles.items() if name not in _NOTES}
    unread = stated.get("split", "") is None and "fold" not in stated
    if unread and {"train", "test"} & {entry.fold for entry in entries}:
        titles.pop("fold", None)  # this column holds splits, which must not be read
    entries = settle_folds(entries, titles, table)
    _refuse_near(entries, labels=target in (None, "label"))
    return entries, titles


def _stated_column(column: str | None) -> str | None:
    """Return a stated column, or None if it must not be read; the command line may pass None as a word."""
    return None if column is None or column.lower() in ("", "none", "null") else column


def _describe(grouping: Grouping, titles: Mapping[str, str]) -> list[str]:
    """Describe, for the log, what joins cases into groups; empty if every case is its own group."""
    if not grouping.decided_by and "patient" not in titles:
        return []
    sources = {"the group": repr(titles.get("group", "group")), "the barcode": "a patient's barcode"}
    columns = [sources.get(name, repr(name)) for name in grouping.decided_by or [titles["patient"]]]
    count = len(set(grouping.groups.values()))
    return [f"cases that share {' or '.join(columns)} stay in one split ({count} groups)"]


def _add_survival(
    entries: Sequence[Entry], rows: Sequence[Row], units: Mapping[str, str], *, asked: bool, days: str
) -> list[Entry]:
    """Add time and event to each row; if survival was not asked for and the columns hold something else, add none."""
    table, found = Path(rows[0].where.rpartition(":")[0]), list[tuple[float, int]]()
    try:
        for row in rows:
            others = {name: (row.cells[_TIME_PREFIX + name], unit) for name, unit in units.items()}
            found.append(read_survival(row, others))
        refuse_doubtful_days([time for time, _ in found], days, table)
    except CohortError as error:
        if asked:
            raise
        logger.warning("times and events are not read, only labels: %s", error)
        return list(entries)
    return [
        entry._replace(case=entry.case._replace(time=time, event=event))
        for entry, (time, event) in zip(entries, found, strict=True)
    ]


def _read_value(entry: Entry) -> Entry:
    """Read a label as a number, so that 1 and 1.0 are the same."""
    value = read_value(entry.case.label, entry.where)
    return entry._replace(case=entry.case._replace(label="", value=value))


def _refuse_near(entries: Sequence[Entry], *, labels: bool) -> None:
    """Refuse labels, cases, patients and groups that differ only in spelling."""
    if labels:
        refuse_near_spellings([(row.case.label, row.where) for row in entries], "label")
    refuse_near_spellings([(row.case.id, row.where) for row in entries], "case", plain_id)
    refuse_near_spellings([(row.case.group, row.where) for row in entries], "group", plain_id)
    for column in entries[0].patients:
        refuse_near_spellings([(row.patients[column], row.where) for row in entries], f"{column} value", plain_id)


def _merge(entries: Sequence[Entry]) -> tuple[list[Case], int]:
    """Join the rows of each case; also return the number of rows without new information."""
    cases: dict[str, Case] = {}
    firsts: dict[str, Entry] = {}
    owners: dict[str, str] = {}
    folders: dict[str, tuple[str, str]] = {}
    repeated = 0
    for entry in entries:
        case, where = entry.case, entry.where
        _refuse_contradiction(firsts.setdefault(case.id, entry), entry)
        repeated += all(slide in owners for slide in case.slides)
        for slide in case.slides:
            if owners.setdefault(slide, case.id) != case.id:
                raise CohortError(
                    f"{where}: slide {slide} belongs to case {owners[slide]} and to case {case.id};"
                    " a slide has one case"
                )
        _refuse_namesakes(entry, folders)
        merged = cases.get(case.id, case)
        cases[case.id] = merged._replace(slides=tuple(dict.fromkeys(merged.slides + case.slides)))
    return list(cases.values()), repeated


def _refuse_namesakes(entry: Entry, folders: dict[str, tuple[str, str]]) -> None:
    """Refuse slides of the same name in two folders, since slides are known by name."""
    for slide, folder in entry.folders:
        other, where = folders.setdefault(slide, (folder, entry.where))
        if other != folder:
            raise CohortError(
                f"{where} and {entry.where}: {other!r} and {folder!r} each have a slide {slide!r}, but slides are identified"
                " by their names; rename one of them"
            )


def _refuse_contradiction(first: Entry, other: Entry) -> None:
    """Refuse two rows of a case that disagree."""
    where = f"{first.where} and :{other.where.rpartition(':')[2]}"
    for name, problem in (
        ("split", "is in two splits"),
        ("label", "has two labels"),
        ("labels", "has two sets of labels"),
        ("value", "has two values"),
        ("time", "has two times"),
        ("event", "has two events"),
        ("group", "is in two groups"),
    ):
        # repr: NaN equals NaN
        one, two = repr(getattr(first.case, name)), repr(getattr(other.case, name))
        if one != two:
            raise CohortError(
                f"{where}: case {first.case.id} {problem} ({one} and {two}); all rows of a case must agree"
            )
    if first.patient != other.patient:
        raise CohortError(
            f"{where}: case {first.case.id} has two patients ({first.patient!r} and {other.patient!r}); correct them, or"
            " if this column does not identify patients say so with columns: {patient: null}"
        )


def _add_slides(entries: Sequence[Entry], table: Path, slide_table: Path) -> tuple[list[Entry], list[Identity]]:
    """Give each row the slides that another table lists for its case, if any; also return that table's identities."""
    slides: dict[str, tuple[str, ...]] = defaultdict(tuple)
    identities = []
    with open_table(slide_table) as (header, lines):
        names = recognise(header, slide_table, {}, survival=False)
        if not {"slide", "case"} <= names.keys():
            raise CohortError(f"{slide_table} must have a case column and a slide column; it has {header}")
        patient = header[names["patient"]] if "patient" in names else ""
        folders: dict[str, tuple[str, str]] = {}
        for row in rows_of(lines, names, slide_table):
            entry = parse_row(row, patient)
            _refuse_namesakes(entry, folders)
            slides[entry.case.id] += entry.case.slides
            identities.append(Identity(entry.case.id, entry.case.slides, "", entry.patients))
    ids = dict.fromkeys(entry.case.id for entry in entries)
    without = [case for case in ids if case not in slides]
    others = sorted(slides.keys() - ids)
    for one, other, absent in ((table, slide_table, without), (slide_table, table, others)):
        if absent:
            logger.warning("%s: %d cases are not in %s: %s", one, len(absent), other, ", ".join(absent))
    if len(others) == len(slides):
        raise CohortError(f"{table} and {slide_table} have no case in common; both must spell cases alike")
    complete = [
        entry._replace(case=entry.case._replace(slides=slides[entry.case.id]), folders=())
        for entry in entries
        if entry.case.id in slides
    ]
    return complete, [one for one in identities if one.case in ids]
