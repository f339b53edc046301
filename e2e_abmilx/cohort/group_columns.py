"""Further columns of a label table that group cases, such as site or scanner."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from e2e_abmilx.cohort.entries import parse_row
from e2e_abmilx.cohort.label_tables import find_column, open_table, recognise, rows_of

_PREFIX = "group column "
_SURVIVAL = ("time", "days", "event", "censorship")  # not read, so they need not be complete


def read_group_columns(table: Path, names: Sequence[str], columns: Mapping[str, str | None]) -> pd.DataFrame:
    """Return the named columns of a label table, one row per case; several values of a case are joined by ``+``.

    Args:
        table: The label table.
        names: The table's own names of the columns.
        columns: The table's names of known columns, as in :func:`~e2e_abmilx.cohort.read_cohort`.

    Raises:
        CohortError: The table has no such column.
    """
    stated = {name: column for name, column in columns.items() if name not in _SURVIVAL}
    with open_table(table) as (header, lines):
        known = recognise(header, table, stated, survival=False)
        wanted = {_PREFIX + name: find_column(name, header, table, "a group") for name in names}
        rows = list(rows_of(lines, {name: known[name] for name in ("slide", "case") if name in known} | wanted, table))
    values: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        own = values[parse_row(row, "").case.id]
        for name in names:
            own[name].append(row.cells[_PREFIX + name])
    joined = {
        case: {name: " + ".join(dict.fromkeys(filter(None, own[name]))) for name in names}
        for case, own in values.items()
    }
    return pd.DataFrame.from_dict(joined, orient="index", columns=list(names))
