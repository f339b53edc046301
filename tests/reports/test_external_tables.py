import csv
import functools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
from cohorts import classified_cohort

from e2e_abmilx.reports.external_tables import (
    ExternalReport,
    explanations,
    group_tables,
    measure_table,
    text,
    write_csv,
    write_json,
)
from e2e_abmilx.reports.groups import measure_groups
from e2e_abmilx.reports.validation import validate


@functools.cache
def _report() -> ExternalReport:
    internal, external = classified_cohort(50, seed=0), classified_cohort(40, seed=1, slope=0.5, prefix="external")
    groups = pd.DataFrame({"site": np.where(external["label"] == "yes", "a", None)}, index=external.index)
    validated = validate(internal, external)
    measured = measure_groups(external, groups, validated.measures)
    return ExternalReport("CPTAC", [("threshold", 0.4)], internal, validated, measured)


def test_csv_has_one_row_per_number(tmp_path: Path) -> None:
    report = _report()
    write_csv(report, tmp_path / "evaluation.csv")
    with open(tmp_path / "evaluation.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["measure", "cohort", "column", "group", "cases", "value", "low", "high"]
    assert len(rows) == 3 * len(report.validated.measures) + 2 * (2 + 4)
    cohorts = {(row["measure"], row["cohort"]): row for row in rows if not row["column"]}
    for name, values in report.validated.values.items():
        for cohort, one in values._asdict().items():
            row = cohorts[name, cohort]
            assert [float(row[key]) for key in ("value", "low", "high")] == [one.point, one.low, one.high]
            assert row["cases"] == {"internal": "50", "external": "40", "difference": ""}[cohort]
    groups = {(row["group"], row["measure"]): row for row in rows if row["column"] == "site"}
    assert groups["a", "auc"]["value"] == ""  # one class only
    assert int(groups["a", "cases_yes"]["value"]) + int(groups["unknown", "cases_no"]["value"]) == 40


def test_json_holds_the_whole_report(tmp_path: Path) -> None:
    report = _report()
    write_json(report, tmp_path / "evaluation.json")
    content = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert content["facts"] == [{"name": "threshold", "value": "0.4"}]
    auc = report.validated.values["auc"]
    assert content["measures"]["auc"]["external"] == auc.external._asdict()
    assert content["measures"]["calibration_slope"]["title"] == "cal. slope"
    assert [group["value"] for group in content["groups"]] == ["a", "unknown"]
    assert content["groups"][0]["estimates"]["auc"]["point"] is None


def test_text_shows_both_cohorts_groups_and_definitions() -> None:
    report = _report()
    shown = text(report)
    internal, external, change = report.validated.values["calibration_slope"]
    for one in (internal, external, change):
        assert one is not None
        assert f"{one.point:.3f} ({one.low:.3f} to {one.high:.3f})" in shown
    assert "internal (n = 50)" in shown
    assert "External cases by site" in shown
    for measure in report.validated.measures.values():
        assert f"{measure.title}: {measure.definition}" in shown
    assert "each cohort is resampled by itself" in shown


def test_a_group_without_measures_shows_dashes() -> None:
    (table,) = group_tables(_report())
    assert table.head == ["site", "cases", "no", "yes", "AUC", "sens.", "spec.", "ECE"]
    assert [row[0] for row in table.rows] == ["a", "unknown"]
    assert table.rows[0][4:] == ["–"] * 4
    assert all(table.numeric[1:])


def test_without_an_internal_test_there_is_one_column() -> None:
    report = _report()
    values = {name: one._replace(internal=None, difference=None) for name, one in report.validated.values.items()}
    alone = report._replace(internal=None, groups=[], validated=report.validated._replace(values=values))
    assert measure_table(alone).head == ["measure", "external (n = 40)"]
    assert list(explanations(alone)) == ["95 %: percentiles of 1000 bootstrap resamples of cases", "–: not defined"]


def test_a_measure_without_an_internal_value_has_a_dash(tmp_path: Path) -> None:
    report = _report()
    values = dict(report.validated.values)
    values["auc"] = values["auc"]._replace(internal=None, difference=None)
    values["ece"] = values["ece"]._replace(external=values["ece"].external._replace(point=math.nan))
    partly = report._replace(validated=report.validated._replace(values=values))
    rows = {row[0]: row for row in measure_table(partly).rows}
    assert (rows["AUC"][1], rows["AUC"][3]) == ("–", "–")
    assert rows["ECE"][2] == "–"
    assert all(measure_table(partly).numeric[1:])
    write_json(partly, tmp_path / "evaluation.json")
    assert json.loads((tmp_path / "evaluation.json").read_text())["measures"]["auc"]["internal"] is None


def test_intervals_that_look_too_certain_are_explained() -> None:
    report = _report()
    values = dict(report.validated.values)
    sure = values["auc"].external._replace(low=1.0, high=1.0)
    rare = values["calibration_slope"].external._replace(undefined=312)
    values["auc"] = values["auc"]._replace(external=sure)
    values["calibration_slope"] = values["calibration_slope"]._replace(external=rare)
    found = list(explanations(report._replace(validated=report.validated._replace(values=values))))
    assert "an interval of width 0 means that all resamples agree, not that the value is certain" in found
    assert "cal. slope: undefined in 312 of 1000 resamples, which its interval leaves out" in found
    assert not any("resamples agree" in one for one in explanations(report))
