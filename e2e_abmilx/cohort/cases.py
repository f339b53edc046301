"""Label tables → cases: the slides of each case, its label, labels or survival, its split."""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from e2e_abmilx.cohort.entries import PERSON, Case, Entry, parse_row
from e2e_abmilx.cohort.folds import settle_folds
from e2e_abmilx.cohort.label_tables import (
    CohortError,
    Row,
    find_labels,
    find_persons,
    find_times,
    open_table,
    recognise,
    rows_of,
)
from e2e_abmilx.cohort.persons import Grouping, Identity, group_persons
from e2e_abmilx.cohort.spellings import plain_id, refuse_near_spellings
from e2e_abmilx.cohort.survival import DAYS_PER_MONTH, Survival, read_survival, refuse_doubtful_days

logger = logging.getLogger(__name__)

_NOTES = {
    "time": " (months)",
    "days": f" (days, divided by {DAYS_PER_MONTH})",
    "event": " (1 = happened)",
    "censorship": " (1 = censored)",
}
_TIME = "time of "  # before the table's names of further columns of times, among the cells of a row

#: What is to be learnt of a case: its class, which of several classes, or time and event.
Target = Literal["label", "multi_label", "survival"]


def read_cohort(
    table: Path,
    *,
    columns: Mapping[str, str | None] | None = None,
    label_columns: Sequence[str] = (),
    slide_table: Path | None = None,
    target: Target | None = None,
) -> list[Case]:
    """Read a label table: a CSV with one row a slide, or one row a case.

    Columns are recognised by their usual names (``COLUMNS``) and logged; every cell is read as text, so that ids
    keep their zeros. A cell may name several slides, parted by ``;``. Without a column of cases every slide is a
    case; without one of slides they are found by the name of the case. A row that says nothing new is left out and
    counted: a table oversampled by repeating rows gives each case once, and how often a case is drawn is the
    sampler's affair.

    Cases of one person are one group: the person is what a column of patients says beside one of cases, and what
    barcodes of TCGA, CPTAC and GTEx say. The log tells which of them decided.

    Args:
        table: The CSV file.
        columns: The table's own names for ``slide``, ``case``, ``patient``, ``label``, ``time`` (months), ``days``,
            ``event`` (1 = happened), ``censorship`` (1 = censored), ``split``, ``fold`` or ``group`` where they are
            not the usual ones; None for one that the table has and that is not to be read.
        label_columns: The table's columns of 1, 0 or, where it is unknown, nothing: one a class of a multi-label
            cohort.
        slide_table: A second CSV, of cases and their slides, where ``table`` has cases only.
        target: What is to be learnt. Times and events are read for ``"survival"`` only; by default they are read
            where they can be, and beside a label that is all.

    Raises:
        CohortError: The file, a column or a row is missing, contradicts another, or can be read in two ways.
    """
    stated = {name: _stated_column(column) for name, column in (columns or {}).items()}
    entries, titles = _read_entries(table, stated, label_columns, target)
    identities = [Identity(row.case.id, row.case.slides, row.case.group, row.persons) for row in entries]
    if slide_table is not None:
        entries, further = _add_slides(entries, table, slide_table)
        identities += further
    grouping = group_persons(identities, table)
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
    table: Path, stated: Mapping[str, str | None], label_columns: Sequence[str], target: Target | None
) -> tuple[list[Entry], dict[str, str]]:
    """The rows of a table, and the table's names of the columns that are read, by ours."""
    with open_table(table) as (header, lines):
        names = recognise(header, table, stated, survival=target in (None, "survival"))
        persons = {PERSON + name: index for name, index in find_persons(header, names, stated).items()}
        rivals = {} if {"time", "days"} & stated.keys() else find_times(header, names)
        times = {_TIME + name: index for name, (index, _) in rivals.items()}
        labels = find_labels(label_columns, header, table)
        rows = list(rows_of(lines, names | labels | persons | times, table))
    if not rows:
        raise CohortError(f"{table} has no rows below its header; a row is a slide with its label")
    titles = {name: header[index] for name, index in names.items()}
    entries = [parse_row(row, titles.get("patient", "")) for row in rows]
    if {"time", "days"} & names.keys():
        units = {name: unit for name, (_, unit) in rivals.items()}
        asked = target == "survival" or "label" not in names
        days = "" if "days" in stated else titles.get("days", "")
        entries = _add_survival(entries, rows, units, asked=asked, days=days)
        if not any(math.isfinite(entry.case.time) for entry in entries):
            titles = {name: title for name, title in titles.items() if name not in _NOTES}
    unread = stated.get("split", "") is None and "fold" not in stated
    if unread and {"train", "test"} & {entry.fold for entry in entries}:
        titles.pop("fold", None)  # it holds the splits that are not to be read
    entries = settle_folds(entries, titles, table)
    _refuse_near(entries, labels=target in (None, "label"))
    return entries, titles


def _stated_column(column: str | None) -> str | None:
    """A stated column, or None where it is not to be read; the command line may hand on None as a word."""
    return None if column is None or column.lower() in ("", "none", "null") else column


def _describe(grouping: Grouping, titles: Mapping[str, str]) -> list[str]:
    """Which column decides what stays in one split, where not each case is by itself."""
    if not grouping.decided_by and "patient" not in titles:
        return []
    sources = {"the group": repr(titles.get("group", "group")), "the barcode": "a person's barcode"}
    columns = [sources.get(name, repr(name)) for name in grouping.decided_by or [titles["patient"]]]
    count = len(set(grouping.groups.values()))
    return [f"cases that share {' or '.join(columns)} stay in one split ({count} groups)"]


def _add_survival(
    entries: Sequence[Entry], rows: Sequence[Row], units: Mapping[str, str], *, asked: bool, days: str
) -> list[Entry]:
    """Add the survival of each row, or none at all, where a label may be meant and the columns hold something else."""
    table, found = Path(rows[0].where.rpartition(":")[0]), list[Survival]()
    try:
        for row in rows:
            others = {name: (row.cells[_TIME + name], unit) for name, unit in units.items()}
            found.append(read_survival(row, others))
        refuse_doubtful_days([said.time for said in found], days, table)
    except CohortError as error:
        if asked:
            raise
        logger.warning("no survival is read beside the label: %s", error)
        return list(entries)
    return [
        entry._replace(case=entry.case._replace(time=said.time, event=said.event))
        for entry, said in zip(entries, found, strict=True)
    ]


def _refuse_near(entries: Sequence[Entry], *, labels: bool) -> None:
    """Refuse labels, cases, persons and groups that differ by their spelling only."""
    if labels:
        refuse_near_spellings([(row.case.label, row.where) for row in entries if row.case.label], "label")
    refuse_near_spellings([(row.case.id, row.where) for row in entries], "case", plain_id)
    refuse_near_spellings(
        [(row.case.group, row.where) for row in entries if row.case.group], "group", plain_id
    )
    for column in entries[0].persons:
        named = [(row.persons[column], row.where) for row in entries if row.persons[column]]
        refuse_near_spellings(named, f"{column} value", plain_id)


def _merge(entries: Sequence[Entry]) -> tuple[list[Case], int]:
    """Join the rows of each case; also count the rows that say nothing new."""
    cases: dict[str, Case] = {}
    firsts: dict[str, Entry] = {}
    owners: dict[str, str] = {}
    folders: dict[str, tuple[str, str]] = {}
    repeated = 0
    for entry in entries:
        case, where = entry.case, entry.where
        first = firsts.setdefault(case.id, entry)
        _refuse_contradiction(first, entry)
        new = [slide for slide in case.slides if slide not in owners]
        repeated += not new
        owners.update(dict.fromkeys(new, case.id))
        stolen = next((slide for slide in case.slides if owners[slide] != case.id), None)
        if stolen:
            raise CohortError(
                f"{where}: slide {stolen} belongs to case {owners[stolen]} and to case {case.id}; a slide has one case"
            )
        _refuse_namesakes(entry, folders)
        merged = cases.get(case.id, case)
        cases[case.id] = merged._replace(slides=tuple(dict.fromkeys(merged.slides + case.slides)))
    return list(cases.values()), repeated


def _refuse_namesakes(entry: Entry, folders: dict[str, tuple[str, str]]) -> None:
    """Refuse slides of one name in two folders, which would be taken for one."""
    for slide, folder in entry.folders:
        other, where = folders.setdefault(slide, (folder, entry.where))
        if other != folder:
            raise CohortError(
                f"{where} and {entry.where}: {other!r} and {folder!r} each have a slide {slide!r}, and slides are told apart"
                " by their names; rename one of them"
            )


def _refuse_contradiction(first: Entry, other: Entry) -> None:
    where = f"{first.where} and :{other.where.rpartition(':')[2]}"
    for name, problem in (
        ("split", "is in two splits"),
        ("label", "has two labels"),
        ("labels", "has two sets of labels"),
        ("time", "has two times"),
        ("event", "has two events"),
        ("group", "is in two groups"),
    ):
        # repr: NaN equals NaN
        one, two = repr(getattr(first.case, name)), repr(getattr(other.case, name))
        if one != two:
            raise CohortError(
                f"{where}: case {first.case.id} {problem} ({one} and {two}); all rows of a case agree"
            )
    if first.patient != other.patient:
        raise CohortError(
            f"{where}: case {first.case.id} has two patients ({first.patient!r} and {other.patient!r}); correct them, or"
            " if this column does not tell persons apart say so with columns: {patient: null}"
        )


def _add_slides(
    entries: Sequence[Entry], table: Path, slide_table: Path
) -> tuple[list[Entry], list[Identity]]:
    """Give each row the slides that another table has of its case; leave out rows without any.

    Also return what the rows of the other table say of whose they are.
    """
    slides: dict[str, tuple[str, ...]] = defaultdict(tuple)
    identities = []
    with open_table(slide_table) as (header, lines):
        names = recognise(header, slide_table, {}, survival=False)
        if not {"slide", "case"} <= names.keys():
            raise CohortError(f"{slide_table} must have a column of cases and one of slides; it has {header}")
        patient = header[names["patient"]] if "patient" in names else ""
        folders: dict[str, tuple[str, str]] = {}
        for row in rows_of(lines, names, slide_table):
            entry = parse_row(row, patient)
            _refuse_namesakes(entry, folders)
            slides[entry.case.id] += entry.case.slides
            identities.append(Identity(entry.case.id, entry.case.slides, "", entry.persons))
    ids = {entry.case.id for entry in entries}
    without = list(dict.fromkeys(entry.case.id for entry in entries if entry.case.id not in slides))
    others = sorted(slides.keys() - ids)
    for one, other, names_there in ((table, slide_table, without), (slide_table, table, others)):
        if names_there:
            logger.warning(
                "%s: %d cases are not in %s: %s", one, len(names_there), other, ", ".join(names_there)
            )
    if len(others) == len(slides):
        raise CohortError(f"{table} and {slide_table} have no case in common; both must spell cases alike")
    complete = [
        entry._replace(case=entry.case._replace(slides=slides[entry.case.id]), folders=())
        for entry in entries
        if entry.case.id in slides
    ]
    return complete, [one for one in identities if one.case in ids]
