"""Rows of a label table, each read by itself."""

import math
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import NamedTuple

from e2e_abmilx.cohort.label_tables import NAMES, CohortError, Row, slide_name
from e2e_abmilx.cohort.spellings import read_split, refuse_spoilt_name
from e2e_abmilx.cohort.survival import BITS

#: Before the table's names of further columns of persons, among the cells of a row.
PERSON = "person "


class Case(NamedTuple):
    """One case of a cohort: what is classified, bootstrapped and split.

    Attributes:
        id: Name of the case (the patient).
        slides: Names of its slides, without file endings.
        label: Class as the table spells it, or an empty string.
        time: Months until the event or the end of observation; NaN where the table has none.
        event: 1 where the event happened, 0 where it was censored.
        split: ``"train"``, ``"val"``, ``"test"``, the number of a fold of the table's own, or an empty string.
        group: Cases of one group are never in two splits: those of one patient, where the table or a barcode of
            TCGA, CPTAC or GTEx tells it, and of one group of the table's; by default the case itself.
        labels: Of a multi-label cohort, for each class 1 where the case has it, 0 where not, -1 where unknown.
    """

    id: str
    slides: tuple[str, ...]
    label: str = ""
    time: float = math.nan
    event: int = 0
    split: str = ""
    group: str = ""
    labels: tuple[int, ...] = ()


class Entry(NamedTuple):
    """What one row says.

    Attributes:
        case: The case as far as this row knows it; its group is what the table's column of groups says.
        where: File and line.
        patient: What the column of patients says; empty without one.
        persons: What each column that tells persons apart says, by the table's names.
        folders: Each slide that is named with a folder, and the folder.
        fold: The number of its fold, where the table has splits beside.
    """

    case: Case
    where: str
    patient: str
    persons: Mapping[str, str]
    folders: tuple[tuple[str, str], ...]
    fold: str


def parse_row(row: Row, patient_column: str) -> Entry:
    """Read a row.

    Args:
        row: The row; cells of further columns of persons are named ``PERSON`` and the table's name.
        patient_column: The table's name of the column of patients.

    Raises:
        CohortError: It names no slide or case, or a label is neither 1 nor 0.
    """
    cells = row.cells
    texts = [
        text.strip() for text in cells["slide" if "slide" in cells else "case"].split(";") if text.strip()
    ]
    slides = [slide_name(text) for text in texts]
    case = cells["case"] if "case" in cells else ";".join(slides)
    if not slides or not all((case, *slides)):
        raise CohortError(f"{row.where}: the slide or case is empty; every row names both")
    for noun in NAMES:
        if noun in cells:
            for text in texts if noun == "slide" else [cells[noun]]:
                refuse_spoilt_name(text, noun, row.where)
    persons = {name.removeprefix(PERSON): text for name, text in cells.items() if name.startswith(PERSON)}
    return Entry(
        Case(
            id=case,
            slides=tuple(dict.fromkeys(slides)),
            label=cells.get("label", ""),
            split=read_split(cells.get("split", "")),
            group=cells.get("group", ""),
            labels=tuple(_parse_label(row, name) for name in cells if name.startswith("label_")),
        ),
        row.where,
        cells.get("patient", ""),
        ({patient_column: cells["patient"]} if patient_column else {}) | persons,
        tuple(
            (path.stem, str(path.parent)) for path in map(PureWindowsPath, texts) if path.name != str(path)
        ),
        read_split(cells.get("fold", "")),
    )


def _parse_label(row: Row, name: str) -> int:
    text = row.cells[name]
    if text not in ("", *BITS):
        raise CohortError(
            f"{row.where}: {name.removeprefix('label_')} {text!r} is neither 1 (the case has it) nor 0 (it has not);"
            " write one of these, or nothing where it is unknown"
        )
    return int(float(text)) if text else -1
