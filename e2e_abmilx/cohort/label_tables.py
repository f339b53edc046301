"""Tables of labels, slides or splits: the columns that the package knows, and the rows."""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.tables import clean, is_missing, plain_key
from e2e_abmilx.io.tables import open_table as open_csv
from e2e_abmilx.slides.slide_files import SUFFIXES

#: Names of columns that identify patients.
PATIENTS = (
    *(
        f"{noun}{ending}"
        for noun in ("patient", "subject", "participant", "donor", "individual", "person")
        for ending in ("", "_id", "_name", "_number", "_no", "_nr", "_code", "_barcode", "_identifier", "_uuid")
    ),
    "pat_id", "bcr_patient_barcode", "bcr_patient_uuid", "case_submitter_id", "submitter_id", "mrn", "pid",
)  # fmt: skip

#: Usual names of each column, the likeliest first; capitals, spaces and punctuation do not count.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "slide": ("slide", "slide_id", "image", "image_id", "filename", "wsi", "wsi_id", "slide_name", "id"),
    "case": ("case", "case_id", *PATIENTS, "id"),
    "patient": PATIENTS,
    "label": ("label", "target", "category"),
    "time": (
        "time", "survival_months", "os_months", "overall_survival_months", "survival_time_months", "time_months",
    ),
    "days": (
        "days", "time_days", "survival_days", "os_days", "os.time", "os_time_days", "os_survival_days",
        "overall_survival_days", "survival_time_days",
    ),
    "event": ("event", "status", "os", "os_status", "os_event"),
    "censorship": ("censorship", "os_censorship", "censored"),
    "split": ("split", "splits", "data_split", "dataset_split", "subset", "partition", "fold"),
    "fold": ("fold", "folds", "fold_id", "cv_fold", "kfold", "split_fold"),
    "group": ("group",),
}  # fmt: skip

#: Columns of names, which must not be missing.
NAMES = ("slide", "case", "patient", "group")

#: Name of a TCGA slide: patient, sample and slide, and the UUID under which the file is published.
TCGA_SLIDE = re.compile(r"(?P<slide>(?P<patient>TCGA-\w{2}-\w{4})-\d{2}[A-Z]-\d{2}-[A-Z]{2}\w*)(\.[0-9A-Fa-f-]{36})?")

#: Patient at the start of a TCGA name, with the tissue source site.
TCGA_PATIENT = re.compile(r"TCGA-(?P<site>\w{2})-\w{4}(?!\w)")

#: Patient in the name of a slide, sample or case: TCGA (also with dots, as R spells it), CPTAC and GTEx.
PATIENT_BARCODE = re.compile(
    r"(?<![A-Z0-9])(?:TCGA[-._][A-Z0-9]{2}[-._][A-Z0-9]{4}|C3[LN][-._]\d{5}|GTEX[-._][A-Z0-9]{4,5})(?![A-Z0-9])",
    re.IGNORECASE,
)

# Columns of the authors' survival tables, the only ones that keep months in a column called Event.
_AUTHORS_SURVIVAL = {"id", "event", "status", "wsi"}


class CohortError(InputError):
    """A table, or the cohort read from it, cannot be used."""


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        where: File and line, for messages.
        cells: Text of each known column, by our names (``COLUMNS`` and ``label_<class>``).
    """

    where: str
    cells: Mapping[str, str]


def open_table(table: Path) -> AbstractContextManager[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """Open a CSV as :func:`e2e_abmilx.io.tables.open_table` does.

    Raises:
        CohortError: The file does not exist, or a row has more or fewer cells than the header.
    """
    if table.is_dir():
        raise CohortError(
            f"{table} is a folder, not a label table; name a CSV in it, or give a folder of folds as data.splits"
        )
    if not table.is_file():
        near = suggest(table.name, [path.name for path in table.parent.glob("*.csv")])
        raise CohortError(f"{table}: there is no such label table{near}; check the path")
    return open_csv(table, "label table", CohortError)


def recognise(
    header: Sequence[str], table: Path, stated: Mapping[str, str | None], *, survival: bool = True
) -> dict[str, int]:
    """Return the position of each known column in a header, by our names.

    A time and its event are found only together, and only if ``survival`` is wanted. The patient column is also the
    case column where there is no other. ``stated`` holds the columns that the user states, by our names, and None for a
    column that must not be read.

    Raises:
        CohortError: A stated column is absent, a name occurs twice, or no column names slides or cases.
    """
    for name in stated:
        if name not in COLUMNS:
            raise CohortError(f"columns: {name!r}{suggest(name, COLUMNS)} is not one of {', '.join(COLUMNS)}")
    columns = {name: find_column(column, header, table, name) for name, column in stated.items() if column}
    keys = [plain_key(name) for name in header]
    usual = {name: keys_of for name, keys_of in COLUMNS.items() if name not in stated}
    if set(keys) >= _AUTHORS_SURVIVAL:
        usual |= {"time": ("event",), "event": ("status",)}
    for pair in (("time", "days"), ("event", "censorship")):
        if not survival or any(stated.get(name) for name in pair):
            usual = {name: keys_of for name, keys_of in usual.items() if name not in pair}
    if "fold" in stated:
        usual["split"] = tuple(name for name in usual.get("split", ()) if name != "fold")
    for name, names in usual.items():
        taken = {index for other, index in columns.items() if other not in ("group", "patient")}
        found = next(_free_columns(names, keys, taken), [])
        if len(found) > 1:
            raise CohortError(
                f"{table} has {len(found)} columns named {header[found[0]]!r}, apart from capitals and punctuation;"
                f" rename all but one, or say which is meant with columns: {{{name}: NAME}}"
            )
        if found:
            columns[name] = found[0]
    if not {"slide", "case"} & columns.keys():
        raise CohortError(_no_slides(header, table))
    return _pair_survival(columns, stated, table)


def find_patients(
    header: Sequence[str], columns: Mapping[str, int], stated: Mapping[str, str | None]
) -> dict[str, int]:
    """Find further columns that may identify patients, in addition to the columns recognised already.

    Returns:
        Their positions, by the table's names; none if the user states the patient column.
    """
    if "patient" in stated:
        return {}
    keys = [plain_key(name) for name in header]
    names = (*COLUMNS["case"][:2], *PATIENTS)  # not `id`, which most often numbers the rows
    found = [index for indices in _free_columns(names, keys, set(columns.values())) for index in indices]
    return {header[index]: index for index in found}


def _free_columns(names: Iterable[str], keys: Sequence[str], taken: set[int]) -> Iterator[list[int]]:
    """Yield the positions of the columns of each name, for names that occur."""
    for name in map(plain_key, names):
        if found := [index for index, key in enumerate(keys) if key == name and index not in taken]:
            yield found


def find_times(header: Sequence[str], columns: Mapping[str, int]) -> dict[str, tuple[int, str]]:
    """Find further columns of times, in addition to the recognised one.

    Returns:
        Position and unit, ``"days"`` or ``"time"`` (months), by the table's names.
    """
    keys = [plain_key(name) for name in header]
    taken = set(columns.values())
    return {
        header[index]: (index, unit)
        for unit in ("time", "days")
        for indices in _free_columns(COLUMNS[unit], keys, taken)
        for index in indices
    }


def find_column(column: str, header: Sequence[str], table: Path, meaning: str) -> int:
    """Return the position of a stated column.

    Raises:
        CohortError: The column does not occur, or more than once.
    """
    if header.count(column) != 1:
        raise CohortError(
            f"{table} has {header.count(column) or 'no'} column {column!r}{suggest(column, header)}, which is stated"
            f" for {meaning}; it has {_shorten(header)}"
        )
    return header.index(column)


def rows_of(lines: Iterable[tuple[int, list[str]]], columns: Mapping[str, int], table: Path) -> Iterator[Row]:
    """Yield the known cells of each row; words for missing values become empty, except in names."""
    for line, cells in lines:
        picked = {name: clean(cells[index]) for name, index in columns.items()}
        known = {name: "" if name not in NAMES and is_missing(cell) else cell for name, cell in picked.items()}
        yield Row(f"{table}:{line}", known)


_ENDINGS = frozenset((*SUFFIXES, ".pt", ".h5", ".zarr"))


def slide_name(text: str) -> str:
    """Return the name of a slide, given its name, its file or a path.

    >>> slide_name("slides/TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF.svs")
    'TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF'
    """
    name = re.split(r"[/\\]", clean(text).rstrip("/\\"))[-1]
    stem, suffix = os.path.splitext(name)
    return "" if name == "." else clean(stem if suffix.lower() in _ENDINGS else name)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a guess at the intended name, for a message; empty where no name is similar."""
    names = sorted(known)
    number = re.sub(r"\.0+$", "", name).lstrip("0")
    near = [one for one in names if number.isdigit() and re.sub(r"\.0+$", "", one).lstrip("0") == number]
    near = near[:1] or difflib.get_close_matches(name, names, n=1)
    return f" (is it {near[0]!r}?)" if near else ""


def _no_slides(header: Sequence[str], table: Path) -> str:
    """Return the message for a header without slides and cases."""
    if any(re.fullmatch(r"[\d.]+|train|val|test", name) for name in header):
        return (
            f"the first line of {table} looks like a row, not like column names: {_shorten(header)};"
            " put a line such as case,slide,label,split above it"
        )
    return (
        f"{table} has no column of slide names (one of {', '.join(COLUMNS['slide'])}) or of cases (case, case_id,"
        f" patient, subject_id, …), only {_shorten(header)}; say which it is with columns: {{slide: NAME}}"
    )


def _shorten(header: Sequence[str]) -> str:
    return f"[{', '.join(map(repr, header[:12]))}{', …' if len(header) > 12 else ''}]"


def _pair_survival(columns: dict[str, int], stated: Mapping[str, str | None], table: Path) -> dict[str, int]:
    """Drop a time without an event, or the reverse, which is not survival; of two times keep the months."""
    time, event = columns.keys() & {"time", "days"}, columns.keys() & {"event", "censorship"}
    lone = time ^ event if not (time and event) else set()
    for name in sorted(lone & {name for name, column in stated.items() if column}):
        other = "event" if name in time else "time"
        raise CohortError(
            f"{table}: {name} is stated, but no column of its {other} is; survival needs both: columns: {{{other}: NAME}}"
        )
    if len(time) == 2:
        lone = lone | {"days"}
    return {name: index for name, index in columns.items() if name not in lone}
