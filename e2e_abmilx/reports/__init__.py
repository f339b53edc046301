"""Finished runs → tables with intervals."""

from e2e_abmilx.reports.command import report
from e2e_abmilx.reports.comparison import Comparison, compare
from e2e_abmilx.reports.report import Report, make_report
from e2e_abmilx.reports.summary import Summary, summarise

__all__ = ["Comparison", "Report", "Summary", "compare", "make_report", "report", "summarise"]
