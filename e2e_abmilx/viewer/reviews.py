"""Reviews: what people note about cases, in ``review.csv`` beside the run.

A row is appended by a single write under a lock and flushed to the disk, so that rows of several viewers never mix, and a
viewer that is killed loses none that it has confirmed. Nothing else in the file is ever changed.
"""

import contextlib
import csv
import io
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.locks import hold

VERDICTS = ("agree", "disagree", "artefact", "note")
LONGEST_NOTE = 10_000  # characters
_MARK = "end"
_COLUMNS = ("time", "case", "slide", "verdict", "note", "x_um", "y_um")


class Review(NamedTuple):
    """A row of ``review.csv``.

    Attributes:
        time: When it was written, ISO 8601 in UTC.
        case: Name of the case.
        slide: Name of the slide; empty if it is about the case.
        verdict: One of ``VERDICTS``.
        note: Free text.
        x_um: Where on the slide, µm from its left edge; empty if it is about the slide.
        y_um: µm from its upper edge.
    """

    time: str
    case: str
    slide: str
    verdict: str
    note: str
    x_um: str = ""
    y_um: str = ""


class Reviews:
    """The reviews of a run.

    Args:
        folder: Folder of ``review.csv``.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "review.csv"

    def read(self) -> tuple[list[Review], list[str]]:
        """Return the rows in their order, and one sentence per row that cannot be read.

        Columns are found by their names, so that people may add some.
        """
        if not self.path.is_file():
            return [], []
        try:
            text = self.path.read_bytes().decode("utf-8-sig", errors="replace").replace("\0", "\ufffd")
        except OSError as error:
            return [], [f"{self.path} cannot be read ({error.strerror})."]
        rows = csv.reader(io.StringIO(text, newline=""))
        found, problems = list[Review](), list[str]()
        try:
            header = next(rows, [])
            if missing := [name for name in ("case", "verdict") if name not in header]:
                return [], [f"{self.path} has no column {missing[0]}: its first row must be {','.join(_COLUMNS)}."]
            for row in rows:
                _parse(header, row, f"{self.path}, line {rows.line_num}", found, problems)
        except csv.Error as error:
            problems.append(
                f"{self.path}, line {rows.line_num} cannot be read ({error}); the rows after it are not shown."
            )
        return found, problems

    def add(self, case: str, slide: str, verdict: object, note: object, x_um: object, y_um: object) -> Review:
        """Append a review and return it; it is on the disk then.

        Raises:
            InputError: The verdict is unknown, the note is no text or too long, a position is no number, or the file
                cannot be written.
        """
        if verdict not in VERDICTS:
            raise InputError(f"verdict is {str(verdict)[:40]!r}; it must be one of {', '.join(VERDICTS)}")
        if not isinstance(note, str) or len(note) > LONGEST_NOTE:
            size = f"{len(note):,} characters long" if isinstance(note, str) else "no text"
            raise InputError(f"the note is {size}; a note has at most {LONGEST_NOTE:,} characters")
        text = note.encode(errors="replace").decode().replace("\0", "\ufffd")  # lone surrogates and NUL are no CSV
        place = [_in_micrometres(name, value) for name, value in (("x_um", x_um), ("y_um", y_um))]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        review = Review(now, case, slide, str(verdict), text, *place)
        try:
            self._append(review)
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror}); the review is not saved") from error
        return review

    def _append(self, review: Review) -> None:
        with hold(self.path.with_name(".review.csv.lock"), wait=True):
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                size = os.fstat(handle).st_size
                header, end = _header_and_end(self.path) if size else (list(_COLUMNS), "")
                row = {**dict.fromkeys(header, ""), **review._asdict()}
                cells = [row[name] for name in header]
                _write(handle, (end + _as_csv([cells] if size else [header, cells])).encode(), size)
                os.fsync(handle)
            finally:
                os.close(handle)


def latest_verdicts(reviews: list[Review]) -> dict[str, str]:
    """Return the last verdict of each case; ``"note"`` where there are only notes."""
    verdicts: dict[str, str] = {}
    for review in reviews:
        if review.verdict != "note" or review.case not in verdicts:
            verdicts[review.case] = review.verdict
    return verdicts


def _write(handle: int, data: bytes, size: int) -> None:
    """Append bytes by a single write; undo it if the disk took only a part."""
    written = os.write(handle, data)
    if written < len(data):
        with contextlib.suppress(OSError):
            os.ftruncate(handle, size)
        raise OSError(28, "no space left on the device")


def _header_and_end(path: Path) -> tuple[list[str], str]:
    """Return the columns of the file, and what ends its last row where that is cut off, maybe inside quotes.

    Raises:
        InputError: A review does not fit the columns.
    """
    text = path.read_bytes().decode("utf-8-sig", errors="replace").replace("\0", "\ufffd")
    header = next(csv.reader(io.StringIO(text, newline="")), [])
    if missing := [name for name in _COLUMNS if name not in header]:
        raise InputError(f"{path} has no column {missing[0]}; its first row must name {', '.join(_COLUMNS)}")
    ends = ("", "\n") if text.endswith("\n") else ("\n",)
    return header, next((end for end in ends if _is_read_apart(text + end, _MARK)), '"\n')


def _is_read_apart(text: str, row: str) -> bool:
    """Return whether a row after this text is read as a row of its own."""
    last: list[str] = []
    with contextlib.suppress(csv.Error):
        for last in csv.reader(io.StringIO(text + row, newline="")):  # noqa: B007
            pass
    return last == [row]


def _as_csv(rows: list[list[str]]) -> str:
    csv.writer(text := io.StringIO(newline="")).writerows(rows)  # CRLF: with \n alone it leaves \r unquoted
    return text.getvalue()


def _parse(header: list[str], row: list[str], place: str, found: list[Review], problems: list[str]) -> None:
    """Add a row to what was found, or a sentence to the problems; empty lines are neither."""
    if not any(row):
        return
    cells = dict(zip(header, row, strict=False))
    if len(row) != len(header) or not cells.get("case") or cells["verdict"] not in VERDICTS:
        problems.append(f"{place} is damaged and not shown: a row has {len(header)} cells with a case and a verdict.")
        return
    found.append(Review(**{name: cells.get(name, "") for name in _COLUMNS}))


def _in_micrometres(name: str, value: Any) -> str:  # noqa: ANN401
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} is {str(value)[:40]!r}; it must be a number of µm, or null")
    return f"{value:.2f}"
