import numpy as np
import pandas as pd
import pytest
from cohorts import EDGES, classified_cohort, survival_cohort
from hand_written import classified, multi_labelled
from lifelines import CoxPHFitter, KaplanMeierFitter

from e2e_abmilx.evaluation.recalibration import CalibrationIntercept, CalibrationSlope
from e2e_abmilx.reports.external_measures import external_measures
from e2e_abmilx.reports.measures import measures_of

CASES = [f"case-{number:03d}" for number in range(90)]


def _values(predictions: pd.DataFrame) -> dict[str, float]:
    once = np.ones(len(predictions), dtype=np.int64)
    return {name: one.estimator(predictions)(once) for name, one in external_measures(predictions).items()}


def test_an_overconfident_model_has_a_slope_of_one_half() -> None:
    values = _values(classified_cohort(20_000, seed=0, slope=0.5))
    assert values["calibration_slope"] == pytest.approx(0.5, abs=0.03)
    assert values["calibration_intercept"] == pytest.approx(0, abs=0.05)
    values = _values(classified_cohort(20_000, seed=0))
    assert values["calibration_slope"] == pytest.approx(1, abs=0.04)


def test_the_measures_of_a_report_come_first() -> None:
    table = classified_cohort(60, seed=0)
    names = list(measures_of(table))
    assert list(external_measures(table)) == [*names, "calibration_slope", "calibration_intercept"]


def test_the_frozen_threshold_decides() -> None:
    table = classified_cohort(60, seed=2, threshold=0.7)
    positive = table[table["label"] == "yes"]
    assert _values(table)["sensitivity"] == (positive["probability_yes"] >= 0.7).mean()


def test_each_of_several_classes_is_calibrated_against_the_rest() -> None:
    classes = ["benign", "in situ", "invasive"]
    table = classified(CASES, classes, seed=0).set_index("case").assign(threshold=np.nan)
    values, once = _values(table), np.ones(len(table), dtype=np.int64)
    for name in classes:
        probability, label = table[f"probability_{name}"], table["label"] == name
        assert values[f"calibration_slope_{name}"] == CalibrationSlope(probability, label)(once)
        assert values[f"calibration_intercept_{name}"] == CalibrationIntercept(probability, label)(once)
    assert "calibration_slope" not in values


def test_unknown_labels_do_not_count() -> None:
    table = multi_labelled(CASES, ["ER", "PR"], seed=0).set_index("case").astype(float)
    known = table["label_ER"].notna()
    assert not known.all()
    wanted = CalibrationSlope(table["probability_ER"][known], table["label_ER"][known])
    once = np.ones(known.sum(), dtype=np.int64)
    assert _values(table)["calibration_slope_ER"] == pytest.approx(wanted(once))


def test_survival_equals_lifelines() -> None:
    table = survival_cohort(150, seed=0)
    table["survival_48"] **= np.random.default_rng(0).uniform(1, 3, 150)  # hazards that are not proportional
    values = _values(table)
    hazard = np.log(-np.log(table["survival_48"]))
    fitted = CoxPHFitter().fit(table[["time", "event"]].assign(hazard=hazard), "time", "event")
    assert values["calibration_slope"] == pytest.approx(fitted.params_["hazard"], rel=1e-4)
    observed = KaplanMeierFitter().fit(table["time"], table["event"])
    for edge in EDGES:
        wanted = (1 - observed.predict(edge)) / (1 - table[f"survival_{edge:g}"]).mean()
        assert values[f"observed_expected_{edge:g}"] == pytest.approx(wanted)
    assert "48 months" in external_measures(table)["calibration_slope"].definition


def test_simulated_survival_is_found() -> None:
    values = _values(survival_cohort(20_000, seed=0))
    found = [values["calibration_slope"], *(values[f"observed_expected_{edge:g}"] for edge in EDGES)]
    assert found == pytest.approx([1, 1, 1, 1], abs=0.04)
    many = _values(survival_cohort(20_000, seed=0, factor=2.0))  # twice the events that the model expects
    assert many["calibration_slope"] == pytest.approx(1, abs=0.04)
    assert many["observed_expected_12"] > 1.5


def test_without_a_survival_curve_the_risk_is_calibrated() -> None:
    table = survival_cohort(80, seed=0)
    hazard = np.log(-np.log(table["survival_48"]))
    cox = table[["time", "event", "threshold"]].assign(risk=hazard)
    values = _values(cox)
    assert set(values) == {"c_index", "calibration_slope"}
    assert values["calibration_slope"] == pytest.approx(_values(table)["calibration_slope"])
    assert "the risk" in external_measures(cox)["calibration_slope"].definition
