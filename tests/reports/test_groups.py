import math

import numpy as np
import pandas as pd
import pytest
from cohorts import classified_cohort, survival_cohort
from hand_written import multi_labelled

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.estimators import RowMean
from e2e_abmilx.reports.external_measures import external_measures
from e2e_abmilx.reports.groups import Group, group_measures, measure_groups
from e2e_abmilx.reports.measures import Measure
from e2e_abmilx.reports.summary import estimate

TABLE = classified_cohort(60, seed=0)


def _measure(predictions: pd.DataFrame, **columns: object) -> dict[tuple[str, str], Group]:
    groups = pd.DataFrame(columns, index=predictions.index)
    found = measure_groups(predictions, groups, external_measures(predictions))
    return {(group.column, group.value): group for group in found}


def _is_blank(group: Group) -> bool:
    return all(math.isnan(one.point) for one in group.estimates.values())


def test_each_group_is_measured_by_itself() -> None:
    site = np.where(np.arange(60) % 3, "Leiden", "Utrecht")
    found = _measure(TABLE, site=site)
    members = TABLE[site == "Utrecht"]
    measures = {name: external_measures(TABLE)[name] for name in ("auc", "sensitivity", "specificity", "ece")}
    assert found["site", "Utrecht"].estimates == estimate(members, measures)
    assert found["site", "Utrecht"].counts == members["label"].value_counts().to_dict()
    assert [group.cases for group in found.values()] == [40, 20]


def test_small_groups_and_groups_of_one_class_are_listed_without_measures() -> None:
    site = np.where(TABLE["label"] == "yes", "only yes", "mixed").astype(object)
    site[np.flatnonzero(TABLE["label"] == "yes")[:12]] = "mixed"
    site[:9] = "small"
    found = _measure(TABLE, site=site)
    assert {value: _is_blank(group) for (_, value), group in found.items()} == {
        "mixed": False,
        "only yes": True,
        "small": True,
    }
    assert found["site", "only yes"].counts["no"] == 0
    assert sum(group.cases for group in found.values()) == 60


def test_values_are_in_natural_order_with_the_unknown_last() -> None:
    scanner = [10, 2, None, 1] * 15
    site = ["site 10", "site 2", " ", "NA"] * 15
    found = _measure(TABLE, scanner=scanner, site=site)
    assert [value for column, value in found if column == "scanner"] == ["1", "2", "10", "unknown"]
    assert [value for column, value in found if column == "site"] == ["site 2", "site 10", "unknown"]
    assert found["site", "unknown"].cases == 30


def test_categories_and_numbered_columns_are_groups() -> None:
    groups = pd.DataFrame(
        {0: pd.Categorical(["a", None] * 30), 1: pd.array([1, None] * 30, dtype="Int64")}, TABLE.index
    )
    found = measure_groups(TABLE, groups, external_measures(TABLE))
    assert [group[:3] for group in found] == [
        ("0", "a", 30),
        ("0", "unknown", 30),
        ("1", "1", 30),
        ("1", "unknown", 30),
    ]


def test_cases_without_a_row_are_unknown() -> None:
    groups = pd.DataFrame({"site": "Leiden"}, index=[*TABLE.index[:40], "somebody else"])
    found = measure_groups(TABLE, groups, external_measures(TABLE))
    assert [(group.value, group.cases) for group in found] == [("Leiden", 40), ("unknown", 20)]


def test_a_group_without_events_has_no_measures() -> None:
    table = survival_cohort(40, seed=0)
    site = np.repeat(["a", "b"], 20)
    table.loc[site == "a", "event"] = 0.0
    found = _measure(table, site=site)
    assert found["site", "a"].counts == {"events": 0}
    assert _is_blank(found["site", "a"])
    assert list(found["site", "b"].estimates) == ["c_index", "observed_expected_48"]
    assert not math.isnan(found["site", "b"].estimates["c_index"].point)


def test_several_labels_are_counted_each() -> None:
    table = multi_labelled([f"case-{number}" for number in range(40)], ["ER", "PR"], seed=0)
    table = table.set_index("case").astype(float).assign(threshold=np.nan)
    site = np.repeat(["a", "b"], 20)
    table.loc[site == "b", ["label_ER", "label_PR"]] = [1.0, np.nan]
    found = _measure(table, site=site)
    assert found["site", "b"].counts == {"ER": 20, "PR": 0}
    assert _is_blank(found["site", "b"])
    assert not _is_blank(found["site", "a"])


def test_other_tasks_have_their_first_measures() -> None:
    table = pd.DataFrame({"value": np.arange(20.0), "predicted_value": 1.0}, index=TABLE.index[:20])
    error = Measure("error", "mean", lambda one: RowMean(one["value"] - one["predicted_value"], np.ones(len(one))))
    measures = {name: error for name in ("pearson", "spearman", "r2", "mae")}
    (group,) = measure_groups(table, pd.DataFrame({"site": "a"}, index=table.index), measures)
    assert group.counts == {}
    assert group.estimates["r2"].point == 8.5
    assert list(group.estimates) == ["pearson", "spearman", "r2"]


def test_decisions_need_a_threshold() -> None:
    assert group_measures(external_measures(TABLE.assign(threshold=np.nan))) == ["auc", "balanced_accuracy", "ece"]


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        (pd.DataFrame({"site": "a"}, index=["x", "y"]), "none of the 60 cases: their first case is x"),
        (pd.DataFrame({"site": []}), "their first case is missing"),
        (pd.DataFrame({"site": "a"}, index=["case-0001"] * 2), "the case case-0001 twice"),
        (pd.DataFrame([["a", "b"]], index=["case-0001"], columns=["site", "site"]), "the column site twice"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups: pd.DataFrame, match: str) -> None:
    with pytest.raises(InputError, match=match):
        measure_groups(TABLE, groups, external_measures(TABLE))


def test_no_columns_give_no_groups() -> None:
    assert measure_groups(TABLE, pd.DataFrame(index=TABLE.index), external_measures(TABLE)) == []
