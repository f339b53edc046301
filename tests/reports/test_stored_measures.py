import json
import math

import numpy as np
import pytest
from cohorts import classified_cohort, survival_cohort

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import bootstrap
from e2e_abmilx.evaluation.estimators import RowMean
from e2e_abmilx.reports.brier import add_own_brier_scores
from e2e_abmilx.reports.external_measures import external_measures
from e2e_abmilx.reports.stored_measures import measures_json, outputs_of, read_measures
from e2e_abmilx.reports.summary import estimate


def test_measures_survive_json_without_names_of_cases() -> None:
    table = survival_cohort(60, seed=0, prefix="patient")
    text = json.dumps(measures_json(table), allow_nan=False)
    assert "patient" not in text
    stored = read_measures(json.loads(text))
    assert (stored.cases, stored.horizon) == (60, 48.0)
    assert stored.outputs == outputs_of(table) == {"survival_edges": [12.0, 24.0, 48.0]}
    scored = add_own_brier_scores(table, 48.0)
    assert stored.estimates == estimate(scored, external_measures(scored))
    assert stored.estimates["brier"] == bootstrap(RowMean(scored["brier"], np.ones(60)), table.index.tolist())


def test_undefined_measures_become_null_and_nan_again() -> None:
    table = classified_cohort(30, seed=0).assign(label="yes")
    content = measures_json(table)
    assert content["measures"]["auc"]["point"] is None
    stored = read_measures(content)
    assert math.isnan(stored.estimates["auc"].point)
    assert stored.estimates["auc"].undefined == 1000
    assert stored.outputs == {"classes": ["no", "yes"]}
    assert stored.horizon is None


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"cases": 3, "outputs": {}, "horizon": None, "measures": {"auc": {"point": 0.5}}},
        {"cases": "many", "outputs": {}, "horizon": None, "measures": {}},
        {"cases": 3, "outputs": {}, "horizon": None, "measures": None},
    ],
)
def test_damaged_measures_are_refused(content: dict[str, object]) -> None:
    with pytest.raises(InputError, match="export the model again"):
        read_measures(content)
