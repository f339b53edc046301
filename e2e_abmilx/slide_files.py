"""Which slides: a folder, a list, or a table of files, each with an override of its µm/px where one is stated."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.slides import SlideError
from e2e_abmilx.slides.listing import SUFFIXES, join_series, list_slides, plain_name

__all__ = ["SUFFIXES", "SlideFile", "find_slides"]


class SlideFile(NamedTuple):
    """A slide to be read.

    Attributes:
        path: The file; of a DICOM series the file of its finest level.
        mpp: Level-0 µm/px to believe whatever the slide says; None to believe the slide.
        title: Its name, where that is not the file's.
    """

    path: Path
    mpp: float | None = None
    title: str = ""

    @property
    def name(self) -> str:
        """The slide's name: the file's, without its ending, in composed characters (NFC)."""
        return self.title or plain_name(self.path)


def find_slides(slides: Path | Sequence[Path]) -> list[SlideFile]:
    """The slides that a folder, a list, one file or a CSV names.

    A CSV has a column ``slide`` (or ``wsi``) of paths, absolute or beside the CSV, and may have ``mpp``. DICOM files of
    one series are one slide.

    Raises:
        SlideError: There is none, or two have one name, or the CSV cannot be used.
    """
    if not isinstance(slides, str | Path):
        files = [SlideFile(Path(path)) for path in slides]
    elif Path(slides).suffix.lower() == ".csv":
        files = _read_table(Path(slides))
    elif Path(slides).is_dir():
        files = _list_folder(Path(slides))
    elif Path(slides).exists():
        files = [SlideFile(Path(slides))]
    else:
        raise SlideError(f"{slides}: there is no such folder, file or CSV of slides; check the path")
    if not files:
        raise SlideError("the list of slides is empty; name at least one file or a folder")
    files = _join_series(files)
    _refuse_same_names(files)
    return files


def _list_folder(folder: Path) -> list[SlideFile]:
    found = list_slides(folder)
    if not found:
        raise SlideError(f"{folder} holds no slide: no file ends in {', '.join(SUFFIXES)}")
    return [SlideFile(path, None, "" if name == plain_name(path) else name) for path, name in found]


def _join_series(files: Sequence[SlideFile]) -> list[SlideFile]:
    """Files that were named one by one: those of one DICOM series are one slide."""
    if sum(file.path.suffix.lower() == ".dcm" and not file.title for file in files) < 2:
        return list(files)
    kept = {slide.path for slide in join_series([file.path for file in files])}
    return [file for file in files if file.path in kept]


def _read_table(table: Path) -> list[SlideFile]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise SlideError(f"{table} cannot be read ({error.strerror}); check the path") from error
    column = next((name for name in ("slide", "wsi") if rows and name in rows[0]), None)
    if rows and column is None:
        raise SlideError(f"{table} has the columns {list(rows[0])}; it needs one named slide, of paths")
    return [
        SlideFile(table.parent / row[str(column)], _read_mpp(row, table, line))
        for line, row in enumerate(rows, 2)
    ]


def _read_mpp(row: dict[str, str], table: Path, line: int) -> float | None:
    text = (row.get("mpp") or "").strip()
    if not text:
        return None
    try:
        mpp = float(text)
    except ValueError:
        mpp = -1.0
    if not 0 < mpp < float("inf"):
        raise SlideError(
            f"{table}:{line}: mpp {text!r} is not a positive number of µm/px; correct it or leave it empty"
        )
    return mpp


def _refuse_same_names(files: Sequence[SlideFile]) -> None:
    """Two slides of one name would share a store."""
    seen: dict[str, Path] = {}
    for file in files:
        if file.name in seen:
            raise SlideError(
                f"{seen[file.name]} and {file.path} are both named {file.name!r}; rename one of them"
            )
        seen[file.name] = file.path
