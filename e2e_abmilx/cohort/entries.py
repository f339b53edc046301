"""Rows of a label table, each read by itself."""

import math
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import NamedTuple

from e2e_abmilx.cohort.label_tables import NAMES, CohortError, Row, slide_name
from e2e_abmilx.cohort.spellings import read_split, refuse_damaged_name
from e2e_abmilx.cohort.survival import BITS

#: Prefix of the cells of further patient columns, before the table's own name of the column.
PATIENT_PREFIX = "patient "


class Case(NamedTuple):
    """One case of a cohort: the unit of classification, resampling and splitting.

    Attributes:
        id: Name of the case.
        slides: Names of its slides, without file endings.
        label: Class as the table spells it, or an empty string.
        time: Months until the event or the end of observation; NaN where the table states none.
        event: 1 if the event happened, 0 if the case was censored.
        split: ``"train"``, ``"val"``, ``"test"``, the number of one of the table's own folds, or an empty string.
        group: Cases of one group always share a split. A group holds the cases of one patient, known from the table
            or from a TCGA, CPTAC or GTEx barcode, and of one group of the table; by default it is the case itself.
        labels: Multi-label cohorts only: per class 1 if the case has it, 0 if not, -1 if unknown.
        value: Regression cohorts only, in place of the label: a number, NaN where the table states none.
    """

    id: str
    slides: tuple[str, ...]
    label: str = ""
    time: float = math.nan
    event: int = 0
    split: str = ""
    group: str = ""
    labels: tuple[int, ...] = ()
    value: float = math.nan


class Entry(NamedTuple):
    """The content of one row.

    Attributes:
        case: The case as far as this row describes it; its group comes from the table's group column.
        where: File and line.
        patient: Cell of the patient column; empty without one.
        patients: Cells of all columns that identify patients, by the table's names.
        folders: Each slide that is named with a folder, and that folder.
        fold: Fold number, where the table has a split column as well.
    """

    case: Case
    where: str
    patient: str
    patients: Mapping[str, str]
    folders: tuple[tuple[str, str], ...]
    fold: str


def parse_row(row: Row, patient_column: str) -> Entry:
    """Read a row of a table that calls its patient column ``patient_column``.

    Raises:
        CohortError: The row names no slide or case, or a label is neither 1 nor 0.
    """
    cells = row.cells
    parts = cells["slide" if "slide" in cells else "case"].split(";")
    texts = [part.strip() for part in parts if part.strip()]
    slides = [slide_name(text) for text in texts]
    case = cells["case"] if "case" in cells else ";".join(slides)
    if not slides or not all((case, *slides)):
        raise CohortError(f"{row.where}: the slide or case is empty; every row must name both")
    for noun in NAMES:
        if noun in cells:
            for text in texts if noun == "slide" else [cells[noun]]:
                refuse_damaged_name(text, noun, row.where)
    paths = [PureWindowsPath(text) for text in texts if any(mark in text for mark in "/\\:")]
    further = {
        name.removeprefix(PATIENT_PREFIX): text for name, text in cells.items() if name.startswith(PATIENT_PREFIX)
    }
    return Entry(
        case=Case(
            id=case,
            slides=tuple(dict.fromkeys(slides)),
            label=cells.get("label", ""),
            split=read_split(cells.get("split", "")),
            group=cells.get("group", ""),
            labels=tuple(_parse_label(row, name) for name in cells if name.startswith("label_")),
        ),
        where=row.where,
        patient=cells.get("patient", ""),
        patients=({patient_column: cells["patient"]} if patient_column else {}) | further,
        folders=tuple((path.stem, str(path.parent)) for path in paths if path.name != str(path)),
        fold=read_split(cells.get("fold", "")),
    )


def _parse_label(row: Row, name: str) -> int:
    text = row.cells[name]
    if text not in ("", *BITS):
        raise CohortError(
            f"{row.where}: {name.removeprefix('label_')} {text!r} is neither 1 (the case has it) nor 0 (it does not);"
            " write one of these, or nothing where it is unknown"
        )
    return int(float(text)) if text else -1
