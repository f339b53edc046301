import json
from pathlib import Path

import pandas as pd
import pytest
from cohorts import classified_cohort, survival_cohort
from hand_written import classified
from pages import Page

from e2e_abmilx.errors import InputError
from e2e_abmilx.reports.external import write_external_report
from e2e_abmilx.reports.stored_measures import measures_json


def _write(folder: Path, internal: pd.DataFrame | dict[str, object] | None, external: pd.DataFrame) -> str:
    groups = pd.DataFrame({"site": ["Leiden", "Utrecht"] * (len(external) // 2)}, index=external.index)
    return write_external_report(internal, external, groups, folder, title="CPTAC", facts=[("µm/px", 0.5)])


def test_a_survival_model_on_another_cohort(tmp_path: Path) -> None:
    internal, external = survival_cohort(60, seed=0), survival_cohort(50, seed=1, prefix="external")
    text = _write(tmp_path, internal, external)
    assert text.startswith("CPTAC\n\nµm/px: 0.5\n\nMeasures, with 95 % intervals\n")
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["cases"] == {"internal": 60, "external": 50}
    for name in ("c_index", "brier", "calibration_slope", "observed_expected_24"):
        for cohort in ("internal", "external", "difference"):
            assert f"{content['measures'][name][cohort]['point']:.3f}" in text
    page = Page(tmp_path / "evaluation.html")
    assert page.texts_in("h3") == ["Kaplan–Meier: internal", "Kaplan–Meier: external", "Observed and expected events"]


def test_an_exported_model_carries_its_internal_measures(tmp_path: Path) -> None:
    internal, external = classified_cohort(60, seed=0), classified_cohort(50, seed=1, slope=0.5, prefix="external")
    stored = json.loads(json.dumps(measures_json(internal)))
    text = _write(tmp_path, stored, external)
    assert "by a normal approximation" in text
    page = Page(tmp_path / "evaluation.html")
    assert page.texts_in("h3") == [
        "ROC",
        "Precision and recall",
        "Confusion: external",
        "Reliability",
        "Calibration: yes",
    ]
    table = pd.read_csv(tmp_path / "evaluation.csv").set_index(["measure", "cohort"])["value"].sort_index()
    change = table["calibration_slope", "external"].iloc[0] - table["calibration_slope", "internal"].iloc[0]
    assert table["calibration_slope", "difference"].iloc[0] == pytest.approx(change)


def test_several_classes_without_an_internal_test(tmp_path: Path) -> None:
    cases = [f"case-{number}" for number in range(40)]
    external = classified(cases, ["a", "b", "c"], seed=0).set_index("case").assign(threshold=float("nan"))
    text = _write(tmp_path, None, external)
    assert "internal" not in text
    assert set(pd.read_csv(tmp_path / "evaluation.csv")["cohort"]) == {"external"}
    assert "external − internal" not in (tmp_path / "evaluation.html").read_text()


def test_nothing_is_written_for_tables_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="of one model"):
        _write(tmp_path / "out", survival_cohort(60, seed=0), classified_cohort(20, seed=0))
    assert not (tmp_path / "out").exists()
