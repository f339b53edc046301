"""Tables of labels, slides or splits: which column is which."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.tables import clean, is_missing, plain_key
from e2e_abmilx.io.tables import open_table as open_csv
from e2e_abmilx.slides.slide_files import SUFFIXES

#: Names of columns that tell persons apart.
PATIENTS = (
    *(
        f"{person}{what}"
        for person in ("patient", "subject", "participant", "donor", "individual", "person")
        for what in ("", "_id", "_name", "_number", "_no", "_nr", "_code", "_barcode", "_identifier", "_uuid")
    ),
    "pat_id", "bcr_patient_barcode", "bcr_patient_uuid", "case_submitter_id", "submitter_id", "mrn", "pid",
)  # fmt: skip

#: Names under which tables keep each column, the likeliest first, compared without regard to capitals, spaces and signs.
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

#: Columns that name things, where a mark of a missing value is a fault of the table.
NAMES = ("slide", "case", "patient", "group")

#: The name of a TCGA slide: patient, sample and slide, and the uuid that its file is published under.
TCGA_SLIDE = re.compile(
    r"(?P<slide>(?P<patient>TCGA-\w{2}-\w{4})-\d{2}[A-Z]-\d{2}-[A-Z]{2}\w*)(\.[0-9A-Fa-f-]{36})?"
)

#: The patient at the head of a TCGA name, and the tissue source site in it.
TCGA_PATIENT = re.compile(r"TCGA-(?P<site>\w{2})-\w{4}(?!\w)")

#: The person in a name of a slide, sample or case: TCGA (also as R spells it, with dots), CPTAC and GTEx.
PERSON_BARCODE = re.compile(
    r"(?<![A-Z0-9])(?:TCGA[-._][A-Z0-9]{2}[-._][A-Z0-9]{4}|C3[LN][-._]\d{5}|GTEX[-._][A-Z0-9]{4,5})(?![A-Z0-9])",
    re.IGNORECASE,
)

# The columns of the authors' survival tables, which alone keep months in a column called Event.
_AUTHORS_SURVIVAL = {"id", "event", "status", "wsi"}
_SURVIVAL = ("time", "days", "event", "censorship")


class CohortError(InputError):
    """A table, or a cohort made of it, that cannot be used as it is."""


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        where: File and line, for messages.
        cells: Text of each recognised column, by our names (``COLUMNS`` and ``label_<class>``).
    """

    where: str
    cells: Mapping[str, str]


def open_table(table: Path) -> AbstractContextManager[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """Open a CSV as :func:`e2e_abmilx.io.tables.open_table` does.

    Raises:
        CohortError: It is no such file, or a row has more or fewer cells than the header.
    """
    if table.is_dir():
        raise CohortError(
            f"{table} is a folder, not a label table; name a CSV in it, and a folder of folds as data.splits"
        )
    if not table.is_file():
        near = suggest(table.name, [path.name for path in table.parent.glob("*.csv")])
        raise CohortError(f"{table}: there is no such label table{near}; check the path")
    return open_csv(table, "label table", CohortError)


def recognise(
    header: Sequence[str], table: Path, stated: Mapping[str, str | None], *, survival: bool = True
) -> dict[str, int]:
    """Find our columns in a header.

    Args:
        header: The table's names of its columns.
        table: The table, for messages.
        stated: Some of them as the user states them; None for one that is not to be read.
        survival: Look for a time and its event too.

    Returns:
        The position of each column that is there, by our names; a time and its event only together. A column of
        patients is the one of cases where no other is.

    Raises:
        CohortError: A stated column is absent, a name is there twice, or nothing names slides or cases.
    """
    columns = {
        name: _find_column(column, header, table, name)
        for name, column in _check_names(stated).items()
        if column
    }
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
                f"{table} has {len(found)} columns named {header[found[0]]!r}, apart from capitals and signs;"
                f" rename all but one, or say which is meant with columns: {{{name}: NAME}}"
            )
        if found:
            columns[name] = found[0]
    if not {"slide", "case"} & columns.keys():
        raise CohortError(_no_slides(header, table))
    return _pair_survival(columns, stated, table)


def find_persons(
    header: Sequence[str], columns: Mapping[str, int], stated: Mapping[str, str | None]
) -> dict[str, int]:
    """Find further columns of a header that may tell persons apart, beside those that are recognised already.

    Returns:
        Their positions, by the table's names; none where it is stated which column tells persons apart.
    """
    if "patient" in stated:
        return {}
    keys = [plain_key(name) for name in header]
    names = (*COLUMNS["case"][:2], *PATIENTS)  # not `id`, which most often numbers the rows
    found = [index for indices in _free_columns(names, keys, set(columns.values())) for index in indices]
    return {header[index]: index for index in found}


def _free_columns(names: Iterable[str], keys: Sequence[str], taken: set[int]) -> Iterator[list[int]]:
    """Positions of the columns of each name, where there are any."""
    for name in map(plain_key, names):
        if found := [index for index, key in enumerate(keys) if key == name and index not in taken]:
            yield found


def find_times(header: Sequence[str], columns: Mapping[str, int]) -> dict[str, tuple[int, str]]:
    """Find further columns of times, beside the recognised one.

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


def find_labels(classes: Sequence[str], header: Sequence[str], table: Path) -> dict[str, int]:
    """Find the columns of a table that are named after the classes of a multi-label cohort.

    Returns:
        The position of each, by ``label_<class>``, in the order of the classes.

    Raises:
        CohortError: There is no such column, or more than one.
    """
    return {f"label_{name}": _find_column(name, header, table, "a class") for name in classes}


def rows_of(lines: Iterable[tuple[int, list[str]]], columns: Mapping[str, int], table: Path) -> Iterator[Row]:
    """Pick the recognised columns out of each row; marks of missing values become empty, except in names."""
    for line, cells in lines:
        picked = {name: clean(cells[index]) for name, index in columns.items()}
        known = {
            name: "" if name not in NAMES and is_missing(cell) else cell for name, cell in picked.items()
        }
        yield Row(f"{table}:{line}", known)


def slide_name(text: str) -> str:
    """The name of a slide, of a file that is named after it or of a path to one.

    >>> slide_name("slides/TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF.svs")
    'TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF'
    """
    path = PurePosixPath(re.split(r"[/\\]", clean(text).rstrip("/\\"))[-1])
    return clean(path.stem if path.suffix.lower() in (*SUFFIXES, ".pt", ".h5", ".zarr") else path.name)


def suggest(name: str, known: Iterable[str]) -> str:
    """A guess at what was meant, to be put into a message; empty where nothing is near."""
    names = sorted(known)
    number = re.sub(r"\.0+$", "", name).lstrip("0")
    near = [one for one in names if number.isdigit() and re.sub(r"\.0+$", "", one).lstrip("0") == number]
    near = near[:1] or difflib.get_close_matches(name, names, n=1)
    return f" (is it {near[0]!r}?)" if near else ""


def _check_names(stated: Mapping[str, str | None]) -> Mapping[str, str | None]:
    for name in stated:
        if name not in COLUMNS:
            raise CohortError(f"columns: {name!r}{suggest(name, COLUMNS)} is not one of {', '.join(COLUMNS)}")
    return stated


def _find_column(column: str, header: Sequence[str], table: Path, meaning: str) -> int:
    if header.count(column) != 1:
        raise CohortError(
            f"{table} has {header.count(column) or 'no'} column {column!r}{suggest(column, header)}, which is stated"
            f" for {meaning}; it has {_shorten(header)}"
        )
    return header.index(column)


def _no_slides(header: Sequence[str], table: Path) -> str:
    if any(re.fullmatch(r"[\d.]+|train|val|test", name) for name in header):
        return (
            f"the first line of {table} looks like a row, not like names of columns: {_shorten(header)};"
            " put a line such as case,slide,label,split above it"
        )
    return (
        f"{table} has no column of slide names (one of {', '.join(COLUMNS['slide'])}) or of cases (case, case_id,"
        f" patient, subject_id, …), only {_shorten(header)}; say which it is with columns: {{slide: NAME}}"
    )


def _shorten(header: Sequence[str]) -> str:
    return f"[{', '.join(map(repr, header[:12]))}{', …' if len(header) > 12 else ''}]"


def _pair_survival(columns: dict[str, int], stated: Mapping[str, str | None], table: Path) -> dict[str, int]:
    """A time without an event, or the reverse, is something else than survival."""
    time, event = columns.keys() & {"time", "days"}, columns.keys() & {"event", "censorship"}
    lone = time ^ event if not (time and event) else set()
    for name in sorted(lone & {name for name, column in stated.items() if column}):
        other = "event" if name in time else "time"
        raise CohortError(
            f"{table}: {name} is stated and its {other} is nowhere; survival needs both: columns: {{{other}: NAME}}"
        )
    if len(time) == 2:
        lone = lone | {"days"}
    return {name: index for name, index in columns.items() if name not in lone}
