"""CSV files as people and spreadsheets write them: encodings, separators, words for missing values."""

import codecs
import csv
import itertools
import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e_abmilx.errors import InputError

logger = logging.getLogger(__name__)

#: Suffixes of the tables that are read.
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")

#: Suffixes of tables that must first be saved as a CSV.
SPREADSHEET_SUFFIXES = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")

#: Words that spreadsheets, R, pandas and data portals write for a missing value, in lower case.
MISSING = frozenset(
    [
        "", "na", "n/a", "n.a.", "nan", "nat", "none", "null", "nil", "missing", "-", "--", "'--", "–", "—", ".", "?",
        "<na>", "#n/a", "#na", "#n/a n/a", "#value!", "#ref!", "#div/0!", "#name?", "#num!", "#null!",
        "unknown", "not available", "not applicable", "not reported", "not evaluated", "not recorded", "not known",
        "not done", "unavailable", "no data", "discrepancy",
    ]
)  # fmt: skip

_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # must come before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHER_FORMATS = {
    b"PK\x03\x04": "a spreadsheet or a zip archive",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b"\x1f\x8b": "compressed",
    b"PAR1": "Parquet",
    b"%PDF": "a PDF",
    b"{\\rtf": "rich text",
}
_SEPARATORS = ",;\t"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[,;\t]*', re.IGNORECASE)
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f"))
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_BLOCK = 1 << 20


@contextmanager
def open_table(
    table: Path, noun: str, refuse: type[InputError]
) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """Open a CSV separated by commas, semicolons or tabs, in UTF-8, UTF-16 or Windows-1252.

    Excel's first line ``sep=;`` is obeyed, and comment lines (``#``) above the header are skipped.

    Args:
        table: The file.
        noun: Kind of table, for messages, such as ``"label table"``.
        refuse: The error to raise, a kind of `InputError`.

    Yields:
        The header and an iterator over the rows with their line numbers. Rows are read on demand, because some tables
        have tens of thousands of columns; each has as many cells as the header.

    Raises:
        InputError: The file cannot be read as such a table, or a row has more or fewer cells than the header.
    """
    if not table.is_file():
        raise refuse(f"{table}: there is no such {noun}; check the path")
    if table.suffix.lower() in SPREADSHEET_SUFFIXES:
        raise refuse(f"{table} is a spreadsheet; save it as a CSV (UTF-8) and name that file")
    try:
        encoding = _encoding(table)
        with open(table, newline="", encoding=encoding) as file:
            lines = _read_lines(file, table, refuse)
            _, header = next(lines, (0, []))
            if not header:
                raise refuse(f"{table} is empty; its first line names the columns")
            yield [clean(name) for name in header], lines
    except (csv.Error, UnicodeError) as error:
        raise refuse(f"{table} cannot be read as a CSV in UTF-8 ({error}); save it as one") from error
    except OSError as error:
        raise refuse(f"{table} cannot be read ({error.strerror}); check the path") from error


def clean(cell: str) -> str:
    """Return the text of a cell without surrounding spaces and invisible characters, in composed form (NFC)."""
    if cell.isascii():
        return cell.strip()
    return unicodedata.normalize("NFC", cell.translate(_INVISIBLE)).strip()


def is_missing(cell: str) -> bool:
    """Return whether a cell stands for a missing value, such as ``NA``, ``#N/A``, ``-`` or ``[Not Available]``."""
    word = cell.strip().casefold()
    if word.startswith("[") and word.endswith("]"):
        word = word[1:-1].strip()
    return word in MISSING


def plain_key(name: str) -> str:
    """Return a column name in lower case without spaces and punctuation, so that spellings compare equal.

    >>> plain_key("OS.time") == plain_key("os_time") == plain_key(" OS Time ")
    True
    """
    return re.sub(r"[\W_]+", "", name.casefold())


def _encoding(table: Path) -> str:
    """Return the encoding that the first bytes of a file state, else UTF-8 if it fits, else Windows-1252.

    Raises:
        UnicodeError: The file is not text.
    """
    with open(table, "rb") as file:
        head = file.read(4096)
    for signature, kind in _OTHER_FORMATS.items():
        if head.startswith(signature):
            raise UnicodeError(f"it is {kind}")
    for mark, encoding in _BOMS.items():
        if head.startswith(mark):
            return encoding
    even, odd = head[::2].count(0), head[1::2].count(0)
    if bool(even) != bool(odd):  # UTF-16 without a byte order mark: every other byte of plain text is zero
        return "utf-16-be" if even else "utf-16-le"
    try:
        _decode(table, "utf-8")
    except UnicodeError:
        example = _decode(table, "cp1252")
        logger.warning("%s is not in UTF-8; reading it as Windows-1252, for example %r", table, example)
        return "cp1252"
    return "utf-8"


def _decode(table: Path, encoding: str) -> str:
    """Decode a whole file and return its first line that is not ASCII.

    Raises:
        UnicodeError: The file is not in that encoding, or not text.
    """
    example = ""
    with open(table, newline="", encoding=encoding) as file:
        while text := file.read(_BLOCK):
            if found := _CONTROLS.search(text):
                raise UnicodeError(f"it holds the control character {found[0]!r}, so it is not text")
            if not (example or text.isascii()):
                example = next(line for line in text.splitlines() if not line.isascii())
    return example.strip()[:60]


def _read_lines(file: Iterable[str], table: Path, refuse: type[InputError]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and cells of each line that is not blank, the header first."""
    skipped, separator, head = _preamble(file, table, refuse)
    reader = csv.reader(itertools.chain(head, file), delimiter=separator, strict=True)
    width = 0
    for cells in reader:
        if not any(clean(cell) for cell in cells):
            continue
        width = width or len(cells)
        line = skipped + reader.line_num
        if len(cells) > width and not any(clean(cell) for cell in cells[width:]):
            cells = cells[:width]  # spreadsheets append separators to rows
        if len(cells) != width:
            cure = "put text that contains the separator in quotes"
            if len(cells) < width:
                cure = "complete the row, with a separator for each empty cell too"
            raise refuse(f"{table}:{line}: the row has {len(cells)} cells, the header {width}; {cure}")
        yield line, cells


def _preamble(file: Iterable[str], table: Path, refuse: type[InputError]) -> tuple[int, str, list[str]]:
    """Return the number of lines above the header, the separator, and the lines from the header on read so far."""
    lines = iter(file)
    read, start, stated, comments = list[str](), 0, "", list[int]()
    for start, line in enumerate(lines):
        read.append(line)
        if not comments and (mark := _SEPARATOR_LINE.fullmatch(line.strip("\r\n "))):
            stated = mark[1]
        elif line.startswith("#"):
            comments.append(start)
        elif line.strip():
            break
    else:
        start = len(read)
    read += [next(lines, ""), ""]
    if len(comments) == 1 and read[start]:  # a single # line with as many cells as the next is the header
        first, second = read[comments[0]], read[start]
        separator = stated or _separator(first, second)
        if len(_cells(first, separator)) == len(_cells(second, separator)):
            start = comments[0]
    separator = stated or _separator(read[start], read[start + 1])
    if not separator:
        raise refuse(
            f"{table}:{start + 1}: both commas and semicolons may separate the columns of {read[start].strip()!r};"
            " put names that contain one in quotes, or write sep=; as the first line"
        )
    return start, separator, [line for line in read[start:] if line]


def _separator(header: str, following: str) -> str:
    """Return the separator that gives the header the most cells; a tie is decided by the next line, else empty."""
    counts = {separator: len(_cells(header, separator)) for separator in _SEPARATORS}
    if not any(counts.values()):  # a quoted name continues on the next line
        return max(_SEPARATORS, key=header.count)
    best = [separator for separator in _SEPARATORS if counts[separator] == max(counts.values())]
    if len(best) == 1 or counts[best[0]] == 1:
        return best[0]
    fitting = [separator for separator in best if len(_cells(following, separator)) == counts[separator]]
    return fitting[0] if len(fitting) == 1 else ""


def _cells(line: str, separator: str) -> list[str]:
    """Return the cells of a line, none if its quotes do not fit the separator."""
    try:
        return next(csv.reader([line], delimiter=separator or ",", strict=True), [])
    except csv.Error:
        return []
