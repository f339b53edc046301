"""The report of an external validation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from e2e_abmilx.reports.external_tables import ExternalReport, text, write_csv, write_json
from e2e_abmilx.reports.groups import measure_groups
from e2e_abmilx.reports.stored_measures import read_measures
from e2e_abmilx.reports.validation import validate


def write_external_report(
    internal: pd.DataFrame | Mapping[str, Any] | None,
    external: pd.DataFrame,
    groups: pd.DataFrame,
    folder: Path,
    *,
    title: str,
    facts: Sequence[tuple[str, object]],
    log_hazard: bool = True,
) -> str:
    """Write ``evaluation.csv``, ``evaluation.json`` and ``evaluation.html``.

    Args:
        internal: Predictions of the internal test, what :func:`~e2e_abmilx.reports.stored_measures.measures_json` kept
            of it, or None.
        external: Predictions of the external cohort. Both tables are in the form of
            :attr:`e2e_abmilx.runs.read.Run.predictions`, and the external threshold is the one of the internal test.
        groups: Columns such as ``site``, indexed by external case; possibly none.
        folder: Where to write; it is created if missing.
        title: Title of the page.
        facts: Name and value of what a reader must know, such as the files of the model and its threshold.
        log_hazard: Whether a risk without predicted survival is a log hazard ratio, as of a Cox model.

    Returns:
        The tables, as text for a terminal.

    Raises:
        InputError: If a table is malformed, the tables do not come from one model, or the groups name none of the cases.
    """
    # matplotlib is slow to import
    from e2e_abmilx.reports.external_page import write_external_page

    own = internal if internal is None or isinstance(internal, pd.DataFrame) else read_measures(internal)
    validated = validate(own, external, log_hazard=log_hazard)
    measured = measure_groups(validated.external, groups, validated.measures)
    report = ExternalReport(title, facts, own, validated, measured)
    write_csv(report, folder / "evaluation.csv")
    write_json(report, folder / "evaluation.json")
    write_external_page(report, folder / "evaluation.html")
    return text(report)
