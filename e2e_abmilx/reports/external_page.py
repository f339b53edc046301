"""The HTML page of an external validation: both cohorts side by side, groups of cases, and figures."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from e2e_abmilx.reports.external_tables import ExternalReport, explanations, group_tables, measure_table
from e2e_abmilx.reports.figures import draw_calibration, draw_predictions
from e2e_abmilx.reports.page_table import Table
from e2e_abmilx.reports.tables import decimals
from e2e_abmilx.reports.templates import embed_figure, write_template


def write_external_page(report: ExternalReport, path: Path) -> None:
    """Write the page, which loads nothing from the network."""
    external = ("external", report.validated.external)
    tested = [("internal", report.internal), external] if isinstance(report.internal, pd.DataFrame) else [external]
    figures = [*draw_predictions(tested), *draw_calibration(tested)]
    write_template(
        "external.html",
        path,
        title=report.title,
        subtitle=" · ".join(f"{cases} {cohort} cases" for cohort, cases in report.sizes.items()),
        notes=report.validated.notes,
        tiles=list(_tiles(report)),
        measure_table=measure_table(report),
        facts=Table("Model and cohorts", ["fact", "value"], report.facts) if report.facts else None,
        explanation=". ".join(explanations(report)),
        measures=report.validated.measures.values(),
        figures=[(title, caption, embed_figure(figure)) for title, caption, figure in figures],
        group_tables=group_tables(report),
    )


def _tiles(report: ExternalReport) -> Iterator[tuple[str, str, str]]:
    """Yield title, external value, and internal value of the first measures."""
    for name in list(report.validated.measures)[:4]:
        internal, external, _ = report.validated.values[name]
        small = f"95 %: {decimals(external.low)} to {decimals(external.high)}"
        if internal is not None:
            small += f"; internal {decimals(internal.point)}"
        yield report.validated.measures[name].title, decimals(external.point), small
