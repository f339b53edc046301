"""What a label table holds: its target, its classes, its cases and splits, and what is doubtful."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.cohort import Case, CohortError, TargetKind, encode_labels, read_cohort
from e2e_abmilx.cohort.label_tables import find_patients, find_times, open_table, recognise
from e2e_abmilx.cohort.values import read_value
from e2e_abmilx.io.tables import clean, is_missing, plain_key

#: Usual names of columns that group cases, such as the scanner; they are only asked about.
GROUPS = frozenset(
    ["site", "tss", "center", "centre", "hospital", "clinic", "institution", "institute", "lab", "laboratory",
     "scanner", "batch", "tma", "array", "block", "source", "study"]
)  # fmt: skip

_MOST_CLASSES = 20
_MOST_GRADES = 10  # whole numbers with more different values are measurements
_MOST_COLUMNS = 200  # tables of gene expression have tens of thousands


class Table(NamedTuple):
    """A label table as far as it is understood.

    Attributes:
        target: Kind of target.
        columns: Names of columns that a config must state.
        classes: The classes in order; empty for survival and regression.
        titles: The table's names of the recognised columns, by our names.
        unread: Its other columns.
        rows: Number of rows.
        repeated: Rows whose recognised cells repeat those of another row.
        cases: The cases, with their splits or folds as the table states them.
        doubts: Questions, each with the option that answers it.
    """

    target: TargetKind
    columns: dict[str, str | None]
    classes: tuple[str, ...]
    titles: dict[str, str]
    unread: list[str]
    rows: int
    repeated: int
    cases: list[Case]
    doubts: list[str]


class _Cells(NamedTuple):
    """The recognised columns of a table, their cells, and the cells of all other columns by the table's names."""

    titles: dict[str, str]
    known: dict[str, list[str]]
    others: dict[str, list[str]]
    patients: set[str]


def read_table(
    table: Path, *, columns: Mapping[str, str | None], target: TargetKind | None, classes: Sequence[str]
) -> Table:
    """Read a label table, and find out what is to be predicted unless it is stated.

    Args:
        table: The CSV.
        columns: The table's names of columns, as in :func:`~e2e_abmilx.cohort.read_cohort`.
        target: Kind of target; by default the one that the columns allow.
        classes: Classes in order or, for several labels per case, the columns of 1 and 0; may be empty.

    Raises:
        CohortError: The table cannot be used, or its target cannot be found without a guess.
    """
    cells = _read_cells(table, columns, survival=target in (None, "survival"))
    kind = target or _find_kind(cells, classes, table)
    stated, doubts = dict(columns), list[str]()
    if kind in ("label", "regression") and "label" not in cells.known:
        title = _take_label(cells, kind if target else None, table)
        stated["label"] = title
        doubts.append(f"Is column {title!r} the target? It is the only one that can be: `--columns '{{label: NAME}}'`")
    if target is None and kind == "label":
        kind = _kind_of_labels(cells, table)
    _refuse_lacking_columns(cells, kind, classes, table)
    names = tuple(classes) if kind == "multi_label" else ()
    cases = read_cohort(table, columns=stated or None, label_columns=names, target=kind)
    return _describe_table(cells, kind, stated, names, cases, classes)._replace(
        doubts=[*doubts, *_doubts(cells, kind, cases)]
    )


def _describe_table(
    cells: _Cells,
    kind: TargetKind,
    stated: dict[str, str | None],
    names: tuple[str, ...],
    cases: list[Case],
    classes: Sequence[str],
) -> Table:
    """Return what the table holds, without doubts; ``names`` are the columns of several labels per case."""
    rows = list(zip(*cells.known.values(), *(cells.others.get(name, []) for name in names), strict=True))
    return Table(
        target=kind,
        columns=stated,
        classes=names or (_order(cases, classes) if kind == "label" else ()),
        titles=cells.titles,
        unread=[name for name in cells.others if name and name not in names],
        rows=len(rows),
        repeated=len(rows) - len(set(rows)),
        cases=cases,
        doubts=[],
    )


def _refuse_lacking_columns(cells: _Cells, kind: TargetKind, classes: Sequence[str], table: Path) -> None:
    has_time = {"time", "days"} & cells.known.keys() and {"event", "censorship"} & cells.known.keys()
    if kind == "survival" and not has_time:
        raise CohortError(
            f"{table} has no columns of a time and its event; say which they are with --columns '{{time: NAME, event:"
            " NAME}' (months; 1 = happened), or days and censorship"
        )
    if kind == "multi_label" and not classes:
        raise CohortError(
            f"{table}: target multi_label needs the columns that hold 1 or 0; name them, such as --classes ER PR"
        )


def _read_cells(table: Path, columns: Mapping[str, str | None], *, survival: bool) -> _Cells:
    with open_table(table) as (header, lines):
        names = recognise(header, table, columns, survival=survival)
        patients = {*find_patients(header, names, columns), *find_times(header, names)}
        free = [index for index in range(len(header)) if index not in names.values()][:_MOST_COLUMNS]
        kept = {header[index]: index for index in free}
        rows = [[cells[index] for index in (*names.values(), *kept.values())] for _, cells in lines]
    if not rows:
        raise CohortError(f"{table} has no rows below its header; a row describes a slide or a case")
    texts = ([("" if is_missing(cell) else clean(cell)) for cell in column] for column in zip(*rows, strict=True))
    by_name = dict(zip([("known", name) for name in names] + [("", name) for name in kept], texts, strict=True))
    return _Cells(
        {name: header[index] for name, index in names.items()},
        {name: by_name["known", name] for name in names},
        {name: by_name["", name] for name in kept},
        patients,
    )


def _find_kind(cells: _Cells, classes: Sequence[str], table: Path) -> TargetKind:
    """Return the kind of target that the columns allow; labels may still turn out to be numbers."""
    survival = bool({"time", "days"} & cells.known.keys())
    if classes and set(classes) <= cells.others.keys():
        return "multi_label"
    if survival and "label" in cells.known:
        time = cells.titles.get("time", cells.titles.get("days"))
        raise CohortError(
            f"{table} has labels in column {cells.titles['label']!r} and survival times in column {time!r}; say which is to"
            " be predicted: --target label, --target regression or --target survival"
        )
    return "survival" if survival else "label"


def _take_label(cells: _Cells, kind: TargetKind | None, table: Path) -> str:
    """Return the only column that may be the label, which is a recognised one from now on."""
    title = _find_label(cells, kind, table)
    cells.titles["label"], cells.known["label"] = title, cells.others.pop(title)
    return title


def _find_label(cells: _Cells, kind: TargetKind | None, table: Path) -> str:
    """Return the only column that may be the label.

    Raises:
        CohortError: None or several may be.
    """
    passed = {*cells.patients, *(name for name in cells.others if plain_key(name) in GROUPS)}
    found = {name: _kind_of(texts) for name, texts in cells.others.items() if name and name not in passed}
    found = {name: one for name, one in found.items() if one is not None and kind in (None, one)}
    if len(found) == 1:
        return next(iter(found))
    if not found:
        raise CohortError(
            f"{table} has no column of labels: none is named label, target or category, and no other holds classes or"
            " numbers; say which it is with --columns '{label: NAME}'"
        )
    listed = ", ".join(f"{name!r} ({_describe(cells.others[name])})" for name in [*found][:8])
    raise CohortError(
        f"{table} has no column named label, and {len(found)} of its columns may be the target: {listed}; say which"
        " with --columns '{label: NAME}' or, for several labels per case, --classes A B"
    )


def _kind_of_labels(cells: _Cells, table: Path) -> TargetKind:
    """Return whether a label column holds classes or numbers.

    Raises:
        CohortError: It holds neither.
    """
    texts = cells.known["label"]
    kind = _kind_of(texts)
    if kind is None:
        values = sorted({text for text in texts if text})
        raise CohortError(
            f"{table}: column {cells.titles['label']!r} has {len(values)} different values in {len(texts)} rows, such as"
            f" {', '.join(map(repr, values[:3]))}, which are neither numbers nor 2 to {_MOST_CLASSES} classes; say which"
            " column is the target with --columns '{label: NAME}', or that these are classes with --target label"
        )
    return kind


def _kind_of(texts: Sequence[str]) -> TargetKind | None:
    """Return what a column may be: classes, numbers or, as None, neither."""
    found = Counter(filter(None, texts))
    if len(found) < 2:
        return None
    try:
        numbers = [read_value(text, "") for text in found]
    except CohortError:
        return "label" if len(found) <= min(_MOST_CLASSES, found.total() / 2) else None
    whole = all(number.is_integer() for number in numbers)
    return "label" if whole and len(found) <= _MOST_GRADES else "regression"


def _describe(texts: Sequence[str]) -> str:
    found = sorted(set(filter(None, texts)))
    return "numbers" if _kind_of(texts) == "regression" else ", ".join(found[:4]) + (", …" if len(found) > 4 else "")


def _order(cases: Sequence[Case], classes: Sequence[str]) -> tuple[str, ...]:
    return encode_labels(cases, classes or None)[1]


def _doubts(cells: _Cells, kind: TargetKind, cases: Sequence[Case]) -> list[str]:
    """Return the questions that the columns leave open, each with the option that answers it."""
    doubts = []
    numbers = kind in ("label", "regression") and _kind_of(cells.known["label"]) == "regression"
    if kind == "regression" and all(text.isdigit() for text in filter(None, cells.known["label"])):
        doubts.append("Are the whole numbers of the target classes? They are taken as a quantity: `--target label`")
    labels = sorted({case.label for case in cases})
    if kind == "label" and len(labels) > 2 and not numbers and all(text.isdigit() for text in labels):
        doubts.append(
            f"Are {', '.join(labels)} ordered grades? Then choose the checkpoint by the quadratic weighted κ:"
            " `--checkpoint.monitor val/qwk`"
        )
    if not {"case", "patient"} & cells.known.keys() and len({case.group for case in cases}) == len(cases):
        doubts.append(
            "Does a patient have several slides? No column says so, so every slide counts as a patient of its own, and"
            " those of one patient could be in training and test: `--columns '{patient: NAME}'`"
        )
    for name, texts in cells.others.items():
        values = set(filter(None, texts))
        if plain_key(name) in GROUPS and 2 < len(values) < len(texts) and "group" not in cells.known:
            doubts.append(
                f"Should cases with the same {name!r} ({len(values)} values) stay in one split? Otherwise the test does"
                f" not show how the model does on a new {name}: `--columns '{{group: {name}}}'`"
            )
    return doubts
