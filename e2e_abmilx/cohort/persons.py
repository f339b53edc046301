"""Which cases are of one person, and so belong into one split."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from e2e_abmilx.cohort.label_tables import PERSON_BARCODE, CohortError

_BARCODE, _GROUP = "the barcode", "the group"  # beside names of columns
_LONGEST_NAME = 3


class Identity(NamedTuple):
    """What a row says of whose it is.

    Attributes:
        case: Name of the case.
        slides: Names of its slides.
        group: What the table's column of groups says; empty without one.
        persons: What each column that tells persons apart says.
    """

    case: str
    slides: tuple[str, ...]
    group: str
    persons: Mapping[str, str]


class Grouping(NamedTuple):
    """Which cases belong together.

    Attributes:
        groups: The group of each case.
        decided_by: What joins cases of different names: names of columns, ``"the barcode"`` or ``"the group"``.
    """

    groups: dict[str, str]
    decided_by: list[str]


def group_persons(rows: Sequence[Identity], table: object) -> Grouping:
    """Join cases that share a patient, a barcode of TCGA, CPTAC or GTEx, or a group, directly or through others.

    A group is named by the table's group, else by the barcode, the patient or the case.

    Args:
        rows: What each row of a label table says.
        table: The table, for messages.

    Raises:
        CohortError: Two columns may tell persons apart and each joins what the other parts.
    """
    sources = list(dict.fromkeys(name for row in rows for name in row.persons))
    apart = {name: _count(rows, [name]) for name in sources}
    if len(sources) > 1 and _count(rows, sources) < min(apart.values()):
        raise CohortError(
            f"{table}: columns {' and '.join(map(repr, sources))} may both tell persons apart, and each joins cases that"
            " the other parts; say which is the person with columns: {patient: NAME}"
        )
    cases = len({row.case for row in rows})
    counts = apart | {_BARCODE: _count(rows, [_BARCODE]), _GROUP: _count(rows, [_GROUP])}
    everything = [*sources, _BARCODE, _GROUP]
    decided_by = [name for name in everything if counts[name] < cases]
    widest = [name for name in decided_by if counts[name] == _count(rows, everything)]
    return Grouping(_name_groups(rows, everything), widest[:1] or decided_by)


def _count(rows: Iterable[Identity], sources: Sequence[str]) -> int:
    """How many groups some of the sources leave."""
    return len(set(_Joined(rows, sources).root_of.values()))


def _name_groups(rows: Sequence[Identity], sources: Sequence[str]) -> dict[str, str]:
    joined = _Joined(rows, sources)
    names: dict[Hashable, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found = names[joined.root_of[row.case]]
        for source, name in _links(row, sources):
            found[source].append(name)
        found["case"].append(row.case)
    order = [_GROUP, _BARCODE, *(source for source in sources if source not in (_GROUP, _BARCODE)), "case"]
    titles = {
        root: _title(next(found[name] for name in order if found[name])) for root, found in names.items()
    }
    return {case: titles[root] for case, root in joined.root_of.items()}


def _title(names: Iterable[str]) -> str:
    distinct = sorted(set(names))
    more = f" + {len(distinct) - _LONGEST_NAME} more" if len(distinct) > _LONGEST_NAME else ""
    return " + ".join(distinct[:_LONGEST_NAME]) + more


def _links(row: Identity, sources: Iterable[str]) -> Iterable[tuple[str, str]]:
    """What joins a row's case with others: its patient, its barcodes, its group."""
    for source in sources:
        if source == _BARCODE:
            texts = (row.case, *row.slides)
            yield from (
                (_BARCODE, _barcode(found[0])) for text in texts for found in PERSON_BARCODE.finditer(text)
            )
        elif name := row.group if source == _GROUP else row.persons.get(source, ""):
            yield source, name


def _barcode(text: str) -> str:
    return text.upper().replace(".", "-").replace("_", "-")


class _Joined:
    """Cases joined through what they share; ``root_of`` says which stands for all that are joined with a case."""

    def __init__(self, rows: Iterable[Identity], sources: Sequence[str]) -> None:
        self._parents: dict[Hashable, Hashable] = {}
        cases = []
        for row in rows:
            cases.append(row.case)
            root = self._find(("case", row.case))
            for link in _links(row, sources):
                self._parents[self._find(("link", *link))] = root
        self.root_of = {case: self._find(("case", case)) for case in dict.fromkeys(cases)}

    def _find(self, name: Hashable) -> Hashable:
        """Follow what a name was joined with, and shorten the way for the next time."""
        way = []
        while (parent := self._parents.setdefault(name, name)) != name:
            way.append(name)
            name = parent
        self._parents.update(dict.fromkeys(way, name))
        return name
