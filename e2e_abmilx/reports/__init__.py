"""Reports on finished runs and external cohorts: measures with intervals, as text, CSV, JSON and one HTML page.

- ``command``: the commands ``report``, ``crossval`` and ``compare``
- ``report``: everything that is measured of one or two sets of runs
- ``summary``: the measures of each run, their spread, and the measures of the pooled test cases
- ``comparison``: two sets of runs on their shared cases
- ``models``: a table of several models
- ``measures``: the measures and their definitions
- ``brier``: Brier scores of survival models
- ``cases``: the prediction of each case and how correct it is
- ``origins``: the label table and the cache of a run
- ``audit``, ``audited``, ``audit_questions``: the audit for shortcuts, what it looks at, and what it asks
- ``audit_tables``, ``audit.html``: this audit as sentences, CSV and HTML
- ``records``: the record in a run's ``run.yaml``
- ``tables``: a report as text, CSV and JSON
- ``figures``: the figures of a report
- ``faithfulness``: the faithfulness of the heatmaps, with its figures
- ``page``, ``page_table``, ``page_facts``, ``page.html``: the HTML page, its tables, and the facts about each run
- ``external``: the report of an external validation
- ``external_measures``: the measures of a report, and calibration
- ``stored_measures``: the measures of an internal test as a model carries them
- ``validation``: the measures of both cohorts and their difference
- ``groups``: the measures of each group of external cases
- ``external_tables``, ``external_page``, ``external.html``: this report as tables, text, CSV, JSON and HTML page
- ``templates``, ``layout.html``, ``table.html``, ``figures.html``: what the HTML pages share
"""

from e2e_abmilx.reports.command import report
from e2e_abmilx.reports.comparison import Comparison, compare_on_shared_cases
from e2e_abmilx.reports.external import write_external_report
from e2e_abmilx.reports.report import Report, make_report
from e2e_abmilx.reports.stored_measures import measures_json
from e2e_abmilx.reports.summary import Summary, summarise

__all__ = [
    "Comparison", "Report", "Summary", "compare_on_shared_cases", "make_report", "measures_json", "report", "summarise",
    "write_external_report",
]  # fmt: skip
