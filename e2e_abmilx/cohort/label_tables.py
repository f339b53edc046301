"""Tables of labels, slides or splits: CSV files whose columns are recognised."""

import csv
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import NamedTuple, TextIO

from e2e_abmilx.errors import InputError
from e2e_abmilx.slide_files import SUFFIXES

#: Names under which tables keep each column, the likeliest first, compared without regard to case.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "slide": ("slide", "slide_id", "image", "image_id", "filename", "wsi", "wsi_id", "id"),
    "case": ("case", "case_id", "patient", "patient_id", "id"),
    "label": ("label", "target", "category"),
    "time": ("time", "survival_months", "os.time"),
    "days": ("days", "time_days", "survival_days"),
    "event": ("event", "status", "os"),
    "censorship": ("censorship",),
    "split": ("split", "fold"),
    "group": ("group",),
}

#: The name of a TCGA slide: patient, sample and slide, and the uuid that its file is published under.
TCGA_SLIDE = re.compile(
    r"(?P<slide>(?P<patient>TCGA-\w{2}-\w{4})-\d{2}[A-Z]-\d{2}-[A-Z]{2}\w*)(\.[0-9A-Fa-f-]{36})?"
)

#: The patient at the head of a TCGA name, and the tissue source site in it.
TCGA_PATIENT = re.compile(r"TCGA-(?P<site>\w{2})-\w{4}(?!\w)")

# The columns of the authors' survival tables, which alone keep months in a column called Event.
_AUTHORS_SURVIVAL = {"id", "event", "status", "wsi"}
_MISSING = {"", "na", "n/a", "nan"}


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


@contextmanager
def open_table(table: Path) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """Open a CSV parted by commas, semicolons or tabs.

    Returns:
        Its header, and its rows with their line numbers, read as they are asked for: some tables have tens of
        thousands of columns.

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
    if table.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise CohortError(f"{table} is a spreadsheet; save it as a CSV (UTF-8) and name that")
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            lines = _read_lines(file, table)
            _, header = next(lines, (0, []))
            if not header:
                raise CohortError(f"{table} is empty; its first line names the columns")
            yield [name.strip() for name in header], lines
    except (csv.Error, UnicodeDecodeError) as error:
        raise CohortError(f"{table} cannot be read as a CSV in UTF-8 ({error}); save it as one") from error


def recognise(header: Sequence[str], table: Path, stated: Mapping[str, str]) -> dict[str, int]:
    """Find our columns in a header.

    Args:
        header: The table's names of its columns.
        table: The table, for messages.
        stated: Some of them as the user states them.

    Returns:
        The position of each column that is there, by our names; a time and its event only together.

    Raises:
        CohortError: A stated column is absent, a name is there twice, or nothing names slides or cases.
    """
    columns = {name: _find_stated(name, column, header, table) for name, column in stated.items()}
    keys = [name.lower() for name in header]
    usual = dict(COLUMNS)
    if set(keys) >= _AUTHORS_SURVIVAL:
        usual |= {"time": ("event",), "event": ("status",)}
    if "time" in stated or "days" in stated:
        del usual["time"], usual["days"]
    if "event" in stated or "censorship" in stated:
        del usual["event"], usual["censorship"]
    for name in [name for name in usual if name not in stated]:
        taken = {index for other, index in columns.items() if other != "group"}
        free = [[i for i, own in enumerate(keys) if own == key and i not in taken] for key in usual[name]]
        found = next(filter(None, free), [])
        if len(found) > 1:
            raise CohortError(
                f"{table} has {len(found)} columns named {header[found[0]]!r}, apart from capitals;"
                f" rename all but one, or say which is meant with columns: {{{name}: NAME}}"
            )
        if found:
            columns[name] = found[0]
    if not {"slide", "case"} & columns.keys():
        raise CohortError(_no_slides(header, table))
    return _pair_survival(columns, stated, table)


def find_labels(classes: Sequence[str], header: Sequence[str], table: Path) -> dict[str, int]:
    """Find the columns of a table that are named after the classes of a multi-label cohort.

    Returns:
        The position of each, by ``label_<class>``, in the order of the classes.

    Raises:
        CohortError: There is no such column, or more than one.
    """
    return {f"label_{name}": _find_column(name, header, table, "a class") for name in classes}


def rows_of(lines: Iterable[tuple[int, list[str]]], columns: Mapping[str, int], table: Path) -> Iterator[Row]:
    """Pick the recognised columns out of each row; marks of missing values become empty."""
    for line, cells in lines:
        picked = {name: cells[index].strip() for name, index in columns.items()}
        known = {
            name: "" if name not in ("slide", "case") and cell.lower() in _MISSING else cell
            for name, cell in picked.items()
        }
        yield Row(f"{table}:{line}", known)


def slide_name(text: str) -> str:
    """The name of a slide, of a file that is named after it or of a path to one.

    >>> slide_name("slides/TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF.svs")
    'TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF'
    """
    path = PureWindowsPath(text.strip())  # parts at / and at \
    return path.stem if path.suffix.lower() in (*SUFFIXES, ".pt", ".h5", ".zarr") else path.name


def suggest(name: str, known: Iterable[str]) -> str:
    """A guess at what was meant, to be put into a message; empty where nothing is near."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (is it {near[0]!r}?)" if near else ""


def _read_lines(file: TextIO, table: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of everything but blank lines, the header first."""
    first = file.readline()
    file.seek(0)
    reader = csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)
    width = 0
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        width = width or len(cells)
        if len(cells) != width:
            raise CohortError(
                f"{table}:{reader.line_num}: the row has {len(cells)} cells, the header {width};"
                " put a text that holds the separator into quotes"
            )
        yield reader.line_num, cells


def _find_stated(name: str, column: str, header: Sequence[str], table: Path) -> int:
    if name not in COLUMNS:
        raise CohortError(f"columns: {name!r}{suggest(name, COLUMNS)} is not one of {', '.join(COLUMNS)}")
    return _find_column(column, header, table, name)


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
        f"{table} has no column of slide names (one of {', '.join(COLUMNS['slide'])}) or of cases"
        f" (one of {', '.join(COLUMNS['case'])}), only {_shorten(header)}; say which it is with columns: {{slide: NAME}}"
    )


def _shorten(header: Sequence[str]) -> str:
    return f"[{', '.join(map(repr, header[:12]))}{', …' if len(header) > 12 else ''}]"


def _pair_survival(columns: dict[str, int], stated: Mapping[str, str], table: Path) -> dict[str, int]:
    """A time without an event, or the reverse, is something else than survival."""
    time, event = columns.keys() & {"time", "days"}, columns.keys() & {"event", "censorship"}
    lone = time ^ event if not (time and event) else set()
    for name in sorted(lone & stated.keys()):
        other = "event" if name in time else "time"
        raise CohortError(
            f"{table}: {name} is stated and its {other} is nowhere; survival needs both: columns: {{{other}: NAME}}"
        )
    if len(time) == 2:
        lone = lone | {"days"}
    return {name: index for name, index in columns.items() if name not in lone}
