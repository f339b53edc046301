"""Patients: cases of one patient form one group, which is never divided between splits."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from scipy.cluster.hierarchy import DisjointSet

from e2e_abmilx.cohort.label_tables import PATIENT_BARCODE, CohortError

_BARCODE, _GROUP = "the barcode", "the group"  # sources of identity other than patient columns
_LONGEST_NAME = 3


class Identity(NamedTuple):
    """Everything in one row that identifies the patient.

    Attributes:
        case: Name of the case.
        slides: Names of its slides.
        group: Cell of the table's group column; empty without one.
        patients: Cells of the columns that identify patients, by the table's names.
    """

    case: str
    slides: tuple[str, ...]
    group: str
    patients: Mapping[str, str]


class Grouping(NamedTuple):
    """The groups of a cohort.

    Attributes:
        groups: The group of each case.
        decided_by: Sources that join cases: names of columns, ``"the barcode"`` or ``"the group"``.
    """

    groups: dict[str, str]
    decided_by: list[str]


def group_patients(rows: Sequence[Identity], table: object) -> Grouping:
    """Join cases that share a patient, a TCGA, CPTAC or GTEx barcode, or a group, directly or through other cases.

    A group is named after the table's group, otherwise after the barcode, the patient or the case. Each row is the
    identity that a row of the table states.

    Raises:
        CohortError: Two columns may identify patients, and each joins cases that the other separates.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row.patients))
    counts = {name: _count_groups(rows, [name]) for name in [*columns, _BARCODE, _GROUP]}
    if len(columns) > 1 and _count_groups(rows, columns) < min(counts[name] for name in columns):
        raise CohortError(
            f"{table}: columns {' and '.join(map(repr, columns))} may both identify patients, and each joins cases that"
            " the other separates; say which one is the patient with columns: {patient: NAME}"
        )
    cases = len({row.case for row in rows})
    decided_by = [name for name, count in counts.items() if count < cases]
    widest = [name for name in decided_by if counts[name] == _count_groups(rows, list(counts))]
    return Grouping(_name_groups(rows, list(counts)), widest[:1] or decided_by)


def barcodes_in(text: str) -> Iterator[str]:
    """Yield the patients' barcodes in a name, spelt alike."""
    for found in PATIENT_BARCODE.finditer(text):
        yield found[0].upper().replace(".", "-").replace("_", "-")


def _count_groups(rows: Sequence[Identity], sources: Sequence[str]) -> int:
    """Count the groups that some of the sources make."""
    return len(set(_join_cases(rows, sources).values()))


def _join_cases(rows: Sequence[Identity], sources: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Map each case to the representative of all cases that it is joined with."""
    joined = DisjointSet(("case", row.case) for row in rows)
    for row in rows:
        for source, name in _links(row, sources):
            joined.add((f"from {source}", name))
            joined.merge(("case", row.case), (f"from {source}", name))
    return {row.case: joined[("case", row.case)] for row in rows}


def _name_groups(rows: Sequence[Identity], sources: Sequence[str]) -> dict[str, str]:
    representatives = _join_cases(rows, sources)
    found: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        names = found[representatives[row.case]]
        for source, name in _links(row, sources):
            names[source].append(name)
        names["case"].append(row.case)
    order = [_GROUP, _BARCODE, *(source for source in sources if source not in (_GROUP, _BARCODE)), "case"]
    titles = {
        root: _join_names(next(names[source] for source in order if names[source])) for root, names in found.items()
    }
    return {case: titles[root] for case, root in representatives.items()}


def _join_names(names: Iterable[str]) -> str:
    distinct = sorted(set(names))
    more = f" + {len(distinct) - _LONGEST_NAME} more" if len(distinct) > _LONGEST_NAME else ""
    return " + ".join(distinct[:_LONGEST_NAME]) + more


def _links(row: Identity, sources: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield source and name of everything that joins a row's case with others: patients, barcodes, the group."""
    for source in sources:
        if source == _BARCODE:
            for text in (row.case, *row.slides):
                for barcode in barcodes_in(text):
                    yield _BARCODE, barcode
        elif name := row.group if source == _GROUP else row.patients.get(source, ""):
            yield source, name
