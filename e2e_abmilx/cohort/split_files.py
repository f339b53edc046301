"""Files that list the split of each case or slide, read and written."""

import csv
import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import PATIENTS, CohortError, open_table, recognise, rows_of, slide_name, suggest
from e2e_abmilx.cohort.spellings import read_split
from e2e_abmilx.cohort.splits import SPLITS, refuse_leaks
from e2e_abmilx.io.tables import clean, is_missing, plain_key

logger = logging.getLogger(__name__)

_FOLD_FILES = ("splits_{}.csv", "fold_{}.csv")

# By column: the kinds of thing that a name may stand for, the likeliest first.
_READINGS = {
    "slide": ("slide",),
    "case": ("case", "patient", "slide"),
    "patient": ("patient", "case", "slide"),
    "": ("case", "slide", "patient"),  # the columns train, val and test
}
_NOUNS = {"slide": "slide", "patient": "patient, case or slide"}

#: Positions of the cases that a name stands for, by kind and name.
Index = Mapping[str, Mapping[str, list[int]]]


class _Listed(NamedTuple):
    """One entry of a file of splits: names by their column, and the split."""

    where: str
    names: Mapping[str, str]
    split: str


def read_splits(cases: Sequence[Case], path: Path, *, fold: int | None = None) -> list[Case]:
    """Give the cases of a cohort the splits that a file lists.

    The file is a CSV with a ``split`` column and a column of cases or slides, as :func:`write_splits` and the authors
    write it, or a CSV with the columns ``train``, ``val`` and ``test`` that list cases or slides, as CLAM writes it.
    Names in a slide column are slides; names in a case column are cases or patients. Usual spellings such as
    ``valid`` and ``Training`` are known.

    Args:
        cases: The cohort; its own splits are replaced.
        path: The file, or a folder of ``splits_<fold>.csv`` or ``fold_<fold>.csv``.
        fold: The fold whose file in the folder is read.

    Returns:
        The cases that the file lists. The others are left out, and the log names them.

    Raises:
        CohortError: The file is absent, is not a file of splits or names an unknown case, a case or patient is in two
            splits, or names are ambiguous.
    """
    file = _fold_file(path, fold)
    listed = list(_list_names(file))
    found: dict[int, tuple[str, str]] = {}
    for (where, _, split), positions in zip(listed, _look_up(listed, _index(cases)), strict=True):
        for position in positions:
            first_where, first = found.setdefault(position, (where, split))
            if first != split:
                raise CohortError(
                    f"{first_where} and :{where.rpartition(':')[2]}: case {cases[position].id} is in two splits"
                    f" ({first!r} and {split!r}); a case and all its slides must be in one split"
                )
    left_out = [case.id for position, case in enumerate(cases) if position not in found]
    if left_out:
        logger.warning("%s: %d cases have no split and are left out: %s", file, len(left_out), ", ".join(left_out))
    chosen = [case._replace(split=found[position][1]) for position, case in enumerate(cases) if position in found]
    try:
        refuse_leaks(chosen)
    except CohortError as error:
        raise CohortError(f"{file}: {error}") from error
    return chosen


def write_splits(cases: Sequence[Case], path: Path) -> None:
    """Write a CSV ``case,split`` that :func:`read_splits` reads, with ``time,event`` for a survival cohort."""
    survival = any(math.isfinite(case.time) for case in cases)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "split", *(["time", "event"] if survival else [])])
        for case in cases:
            writer.writerow([case.id, case.split, *([case.time, case.event] if survival else [])])


def _index(cases: Sequence[Case]) -> Index:
    index: dict[str, dict[str, list[int]]] = {kind: defaultdict(list) for kind in ("case", "slide", "patient")}
    for position, case in enumerate(cases):
        index["case"][case.id].append(position)
        index["patient"][case.group or case.id].append(position)
        for slide in case.slides:
            index["slide"][slide].append(position)
    return index


def _look_up(listed: Sequence[_Listed], index: Index) -> list[list[int]]:
    """Return the cases of each entry; one reading is chosen for the names of all entries where possible.

    Raises:
        CohortError: A name is unknown, or two readings of the names give different cases.
    """
    columns = [column for column in ("patient", "case", "slide", "") if all(column in entry.names for entry in listed)]
    readings = {
        (column, kind): [_find(entry.names[column], index[kind]) for entry in listed]
        for column in columns
        for kind in _READINGS[column]
    }
    complete = {reading: found for reading, found in readings.items() if all(found)}
    if complete:
        (column, kind), chosen = next(iter(complete.items()))
        for (other, other_kind), found in complete.items():
            # names in a case column are cases if possible; those in a patient column are never slides
            if other != column or column == "" or (kind == "patient" and other_kind == "case"):
                _refuse_two_readings(listed, column, chosen, found)
        return chosen
    column = columns[0]
    if column:
        chosen = max((readings[column, kind] for kind in _READINGS[column]), key=lambda found: sum(map(bool, found)))
    else:
        chosen = [[] for _ in listed]
        for found in readings.values():
            _refuse_two_readings(listed, column, chosen, found)
            chosen = [one or other for one, other in zip(chosen, found, strict=True)]
    for entry, positions in zip(listed, chosen, strict=True):
        if not positions:
            name, known = entry.names[column], {name for kind in _READINGS[column] for name in index[kind]}
            raise CohortError(
                f"{entry.where}: the label table has no {_NOUNS.get(column, 'case or slide')} {name!r}"
                f"{suggest(name, known)}; correct the file or the table"
            )
    return chosen


def _find(name: str, index: Mapping[str, list[int]]) -> list[int]:
    """Return the cases that a name stands for: exactly, as a file name, or as a number with or without ``.0``."""
    whole = name.removesuffix(".0")
    for spelling in (name, slide_name(name), *([whole, f"{whole}.0"] if whole.isdigit() else [])):
        if spelling in index:
            return index[spelling]
    parts = [_find(part, index) for part in name.split(";") if part.strip()] if ";" in name else []
    return [position for part in parts for position in part] if all(parts) else []


def _refuse_two_readings(
    listed: Sequence[_Listed], column: str, one: Sequence[list[int]], other: Sequence[list[int]]
) -> None:
    """Refuse entries for which two readings have no case in common."""
    for entry, first, second in zip(listed, one, other, strict=True):
        if first and second and not set(first) & set(second):
            raise CohortError(
                f"{entry.where}: {entry.names[column]!r} may be one case, or a slide or patient of another; list the names"
                " in a column slide, or in a column case, next to a column split"
            )


def _fold_file(path: Path, fold: int | None) -> Path:
    if not path.is_dir():
        if fold is not None:
            raise CohortError(
                f"{path} is one file of splits, so fold {fold} has no meaning; name the folder, or omit data.fold"
            )
        return path
    if fold is None:
        raise CohortError(f"{path} is a folder of splits; say which fold (data.fold: 0)")
    files = [path / name.format(fold) for name in _FOLD_FILES]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        existing = sorted(file.name for file in path.glob("*.csv"))
        raise CohortError(f"{path} has no {' or '.join(file.name for file in files)}, only {existing}; check the fold")
    return found


def _list_names(file: Path) -> Iterator[_Listed]:
    """Yield the entries of a file of splits."""
    with open_table(file) as (header, lines):
        keys = [read_split(name) for name in header]
        if {"train", "val"} <= set(keys) or {"train", "test"} <= set(keys):
            for line, cells in lines:
                for key, cell in zip(keys, map(clean, cells), strict=True):
                    if key in SPLITS and not is_missing(cell):
                        yield _Listed(f"{file}:{line}", {"": cell}, key)
            return
        columns = recognise(header, file, {}, survival=False)
        if "split" not in columns:
            raise CohortError(
                f"{file} has neither a column split nor the columns train, val and test; a file of splits needs either"
            )
        kinds = {name: _kind(name, header[columns[name]]) for name in ("slide", "case") if name in columns}
        for row in rows_of(lines, columns, file):
            split = read_split(row.cells["split"])
            if split not in SPLITS:
                raise CohortError(
                    f"{row.where}: split {split!r}{suggest(split, SPLITS)} is not one of {', '.join(SPLITS)}; correct it"
                )
            names = {kind: row.cells[name] for name, kind in kinds.items() if row.cells[name]}
            if not names:
                raise CohortError(f"{row.where}: a split without a case or slide; complete or remove the row")
            yield _Listed(row.where, names, split)


def _kind(name: str, title: str) -> str:
    """Return what a column of names holds: slides, cases, patients, or, if it is called ``id``, any of these."""
    if plain_key(title) == "id":
        return ""
    return "patient" if name == "case" and plain_key(title) in map(plain_key, PATIENTS) else name
