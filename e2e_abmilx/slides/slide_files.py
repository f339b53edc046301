"""The slides that a folder, a list or a table names, each with an optional override of its µm per pixel."""

import logging
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from e2e_abmilx.errors import SlideError
from e2e_abmilx.io.tables import SPREADSHEET_SUFFIXES, TABLE_SUFFIXES, clean, is_missing, open_table, plain_key
from e2e_abmilx.slides.listing import SUFFIXES, SlideFile, join_series, list_slides

logger = logging.getLogger(__name__)

__all__ = ["SUFFIXES", "SlideFile", "find_slides"]

_SLIDE_COLUMNS = ("slide", "wsi")
_SCALE_WORDS = re.compile(r"mpp|micron|µm|μm|um/p|spacing|resolution|magnif|objective|pixel.?size", re.IGNORECASE)


def find_slides(slides: Path | Sequence[Path]) -> list[SlideFile]:
    """Return the slides that a folder, a list, one file or a CSV names.

    A CSV has a column ``slide`` (or ``wsi``) of paths, absolute or relative to the CSV, and may have ``mpp``. It is read
    like a label table: commas, semicolons or tabs; UTF-8, UTF-16 or Windows-1252; capitals and spaces are ignored.
    The DICOM files of one series are one slide.

    Raises:
        SlideError: There is no slide, two slides have the same name, or the CSV cannot be used.
    """
    if not isinstance(slides, str | Path):
        files = [SlideFile(Path(path)) for path in slides]
    elif Path(slides).suffix.lower() in (*TABLE_SUFFIXES, *SPREADSHEET_SUFFIXES):
        files = _read_table(Path(slides))
    elif Path(slides).is_dir():
        files = list_slides(Path(slides))
        if not files:
            raise SlideError(f"{slides} holds no slide: no file ends in {', '.join(SUFFIXES)}")
    elif Path(slides).exists():
        files = [SlideFile(Path(slides))]
    else:
        raise SlideError(f"{slides}: there is no such folder, file or CSV of slides; check the path")
    if not files:
        raise SlideError("the list of slides is empty; name at least one file or a folder")
    files = _join_series(files)
    _refuse_same_names(files)
    return files


def _join_series(files: list[SlideFile]) -> list[SlideFile]:
    """Keep one file per DICOM series among files that were named individually."""
    if sum(file.path.suffix.lower() == ".dcm" and not file.title for file in files) < 2:
        return files
    kept = {slide.path for slide in join_series([file.path for file in files])}
    return [file for file in files if file.path in kept]


def _read_table(table: Path) -> list[SlideFile]:
    """Read the slides of a CSV; a row that repeats another is left out."""
    files: dict[Path, tuple[SlideFile, int]] = {}
    with open_table(table, "list of slides", SlideError) as (header, lines):
        slide, mpp = _find_columns(header, table)
        for line, cells in lines:
            text = clean(cells[slide])
            if is_missing(text):
                raise SlideError(f"{table}:{line}: the slide is empty; name its file, or remove the row")
            path = _find_file(table.parent, cells[slide])
            file = SlideFile(path, None if mpp is None else _read_mpp(cells[mpp], table, line))
            first, first_line = files.setdefault(file.path, (file, line))
            if first != file:
                raise SlideError(
                    f"{table}:{first_line} and :{line}: {text} has two mpp, {first.mpp} and {file.mpp}; correct one"
                )
    return [file for file, _ in files.values()]


def _find_file(folder: Path, cell: str) -> Path:
    """Return the file that a cell names, as written or with accents as the disk spells them."""
    text = clean(cell)
    spellings = [folder / name for name in (cell.strip(), text, unicodedata.normalize("NFD", text))]
    return next((path for path in spellings if path.exists()), folder / text)


def _find_columns(header: Sequence[str], table: Path) -> tuple[int, int | None]:
    """Return the positions of the columns of slides and of µm per pixel; the second is None if absent."""
    keys = [plain_key(name) for name in header]
    for name in (*_SLIDE_COLUMNS, "mpp"):
        if keys.count(name) > 1:
            raise SlideError(f"{table} has {keys.count(name)} columns named {name}; remove all but one")
    slide = next((keys.index(name) for name in _SLIDE_COLUMNS if name in keys), None)
    if slide is None:
        raise SlideError(f"{table} has the columns {list(header)}; it needs one named slide, with paths")
    mpp = keys.index("mpp") if "mpp" in keys else None
    others = [name for index, name in enumerate(header) if name and index not in (slide, mpp)]
    doubtful = [name for name in others if _SCALE_WORDS.search(name)]
    if doubtful and mpp is None:
        raise SlideError(
            f"{table}: column {doubtful[0]!r} may be a scale, which is only read from a column named mpp (µm per pixel);"
            " name it mpp, or remove it"
        )
    found = [f"slide from {header[slide]!r}", *([] if mpp is None else [f"mpp from {header[mpp]!r}"])]
    found += [f"not read: {', '.join(map(repr, others))}"] if others else []
    logger.info("%s: %s", table, "; ".join(found))
    return slide, mpp


def _read_mpp(cell: str, table: Path, line: int) -> float | None:
    text = clean(cell)
    if is_missing(text):
        return None
    try:
        mpp = float(re.sub(r"^(\d+),(\d+)$", r"\1.\2", text))  # a decimal comma
    except ValueError:
        mpp = -1.0
    if not 0 < mpp < float("inf"):
        raise SlideError(
            f"{table}:{line}: mpp {text!r} is not a positive number of µm per pixel; correct it or leave it empty"
        )
    return mpp


def _refuse_same_names(files: Sequence[SlideFile]) -> None:
    """Refuse two slides with the same name, which would share a store."""
    seen: dict[str, Path] = {}
    for file in files:
        if file.name in seen:
            raise SlideError(f"{seen[file.name]} and {file.path} are both named {file.name!r}; rename one of them")
        seen[file.name] = file.path
