import functools

import numpy as np
import pandas as pd
import pytest
from cohorts import classified_cohort, survival_cohort

from e2e_abmilx.errors import InputError
from e2e_abmilx.reports.brier import add_own_brier_scores
from e2e_abmilx.reports.stored_measures import measures_json, read_measures
from e2e_abmilx.reports.validation import Validated, validate

INTERNAL = survival_cohort(80, seed=0)
EXTERNAL = survival_cohort(60, seed=1, factor=2.0, prefix="external")


@functools.cache
def _whole() -> Validated:
    return validate(INTERNAL, EXTERNAL)


def test_drift_of_a_cohort_with_twice_the_hazard() -> None:
    found = _whole()
    internal, external, change = found.values["observed_expected_12"]
    assert internal is not None
    assert change is not None
    assert change.point == external.point - internal.point
    assert change.low > 0  # more events than expected
    slope = found.values["calibration_slope"].difference
    assert slope is not None
    assert slope.low < 0 < slope.high
    brier = add_own_brier_scores(EXTERNAL, 48.0)["brier"]
    assert found.values["brier"].external.point == pytest.approx(brier.mean())
    assert found.notes == ["IBS: from 0 to 48 months; weighted by the censoring of each cohort itself"]


def test_stored_measures_give_nearly_the_same_difference() -> None:
    whole = _whole()
    stored = validate(read_measures(measures_json(INTERNAL)), EXTERNAL)
    for name, (internal, external, change) in whole.values.items():
        assert stored.values[name].internal == internal
        assert stored.values[name].external == external
        rough = stored.values[name].difference
        assert change is not None
        assert rough is not None
        assert rough.point == pytest.approx(change.point)
        assert rough.std == pytest.approx(change.std, rel=0.1)
        assert rough[3:5] == pytest.approx(change[3:5], abs=0.35 * change.std)


def test_without_an_internal_test_there_is_no_difference() -> None:
    found = validate(None, EXTERNAL[:9])
    assert found.notes[0] == "only 9 external cases: intervals of fewer than 10 cases are too narrow"
    assert all(one.internal is None and one.difference is None for one in found.values.values())
    assert set(found.values) == set(found.measures)


def test_both_brier_scores_end_where_both_cohorts_are_followed() -> None:
    short = EXTERNAL.assign(
        time=EXTERNAL["time"].clip(upper=30), event=EXTERNAL["event"].where(EXTERNAL["time"] < 30, 0)
    )
    found = validate(INTERNAL, short)
    internal, external, _ = found.values["brier"]
    assert internal is not None
    assert internal.point == pytest.approx(add_own_brier_scores(INTERNAL, 24.0)["brier"].mean())
    assert external.point == pytest.approx(add_own_brier_scores(short, 24.0)["brier"].mean())
    assert np.isnan(found.values["observed_expected_48"].external.point)
    stored = validate(read_measures(measures_json(INTERNAL)), short)
    assert stored.values["brier"].internal is None
    assert "no internal IBS: the stored one is from 0 to 48 months, beyond the external follow-up" in stored.notes
    early = validate(read_measures(measures_json(short)), INTERNAL)
    assert early.values["brier"].external.point == pytest.approx(internal.point)
    nobody = validate(INTERNAL, EXTERNAL.assign(time=1.0, event=0.0))
    assert "brier" not in nobody.values
    assert nobody.notes == ["no IBS: all external cases are censored before the end of the first time bin"]


def test_a_measure_that_the_internal_test_lacks_has_no_difference() -> None:
    found = validate(classified_cohort(40, seed=0, threshold=np.nan), classified_cohort(40, seed=1, prefix="external"))
    assert found.values["sensitivity"].internal is None
    assert found.values["auc"].difference is not None


def test_shared_names_are_noted_and_brier_scores_with_other_weights_replaced() -> None:
    found = validate(
        INTERNAL.assign(brier=9.0), EXTERNAL.assign(brier=9.0).rename(index={"external-0003": "case-0001"})
    )
    assert found.notes[0].startswith("1 case names are in both cohorts, first case-0001")
    internal, external, _ = found.values["brier"]
    assert internal is not None
    assert max(internal.point, external.point) < 1


@pytest.mark.parametrize(
    ("internal", "external", "match"),
    [
        (classified_cohort(9, seed=0).rename(columns={"probability_no": "probability_maybe"}), None, "of one model"),
        (
            classified_cohort(9, seed=0)[["label", "probability_yes", "probability_no", "threshold"]],
            None,
            "of one model",
        ),
        (INTERNAL, None, "of one model"),
        (None, classified_cohort(9, seed=0).assign(label="maybe"), "'maybe'; the classes of the model are no, yes"),
        (None, classified_cohort(9, seed=0)[:0], "no predictions"),
        (None, pd.concat([classified_cohort(9, seed=0)] * 2), "two predictions of case case-0000"),
        (pd.concat([INTERNAL] * 2), EXTERNAL, "the internal cohort has two"),
        (INTERNAL, EXTERNAL.rename(columns={"survival_48": "survival_47"}), "of one model"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    internal: pd.DataFrame | None, external: pd.DataFrame | None, match: str
) -> None:
    with pytest.raises(InputError, match=match):
        validate(internal, classified_cohort(9, seed=1) if external is None else external)
