"""Further columns of a label table that group cases, such as site or scanner."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from e2e_abmilx.cohort.entries import Case, parse_row
from e2e_abmilx.cohort.label_tables import TCGA_PATIENT, find_column, open_table, recognise, rows_of
from e2e_abmilx.cohort.patients import barcodes_in
from e2e_abmilx.io.tables import plain_key

#: Usual names of columns that say where, with what or when a slide was made; capitals, spaces and punctuation do not
#: count, nor does an ending such as ``_id``.
ORIGINS = (
    "site", "hospital", "center", "centre", "institution", "institute", "clinic", "lab", "laboratory", "source",
    "source_site", "tss", "tissue_source_site", "submitting_site", "country", "cohort", "dataset", "scanner",
    "scanner_model", "scanner_type", "scanner_vendor", "scanner_manufacturer", "manufacturer", "vendor", "stainer",
    "staining", "stain", "batch", "plate", "staining_batch", "scan_batch", "scanning_batch", "scan_date", "scan_year",
)  # fmt: skip
_ENDINGS = ("", "_id", "_code", "_name", "_no", "_number")
_ORIGIN_KEYS = {plain_key(f"{name}{ending}") for name in ORIGINS for ending in _ENDINGS}

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


def find_group_columns(table: Path) -> list[str]:
    """Return the columns of a label table whose usual names say where, with what or when a slide was made.

    Raises:
        CohortError: The file cannot be read.
    """
    with open_table(table) as (header, _):
        return [name for name in header if plain_key(name) in _ORIGIN_KEYS and header.count(name) == 1]


def tissue_source_sites(cases: Sequence[Case]) -> dict[str, str]:
    """Return the tissue source site of each case with a TCGA barcode, by the case; several are joined by ``+``."""
    sites: dict[str, str] = {}
    for case in cases:
        found = [TCGA_PATIENT.match(code) for text in (case.id, *case.slides) for code in barcodes_in(text)]
        if own := dict.fromkeys(match["site"] for match in found if match):
            sites[case.id] = " + ".join(own)
    return sites
