"""Metrics that are undefined for a split are named with the reason."""

import math

import pytest

from e2e_abmilx.data.bag import Target
from e2e_abmilx.tasks.coverage import coverage_of_classes, coverage_of_labels, coverage_of_survival, coverage_of_values

GRADES = ("benign", "G1", "G2")


def _labels(*labels: int) -> list[Target]:
    return [Target(label) for label in labels]


def test_nothing_is_undefined_if_all_classes_occur() -> None:
    assert coverage_of_classes(_labels(0, 1, 2, 1), GRADES) == ({}, ())
    assert coverage_of_classes(_labels(-1, -1), GRADES) == ({}, ())  # without known labels nothing is evaluated
    assert coverage_of_classes([], GRADES) == ({}, ())


def test_an_absent_class_is_named() -> None:
    covered = coverage_of_classes(_labels(0, 2, 2), GRADES)
    assert covered.undefined == {}
    assert covered.notes == ("no case of class G1: AUC and balanced accuracy are means over the others",)


@pytest.mark.parametrize("labels", [(1,), (1, 1, 1), (1, -1)])
def test_auc_is_undefined_for_a_single_class(labels: tuple[int, ...]) -> None:
    covered = coverage_of_classes(_labels(*labels), GRADES)
    cases = "all 3 cases are" if len(labels) == 3 else "its only case is"
    assert covered.undefined["auc"] == covered.undefined["kappa"] == f"{cases} of class G1"


def test_several_labels() -> None:
    both = [Target((1, 0)), Target((0, 1)), Target((-1, 1))]
    assert coverage_of_labels(both, ("ER", "PR")) == ({}, ())
    one_sided = coverage_of_labels([Target((1, 1)), Target((0, 1)), Target((0, -1))], ("ER", "PR"))
    assert one_sided.undefined == {}
    assert one_sided.notes[0].startswith("no positive or no negative case of PR")
    assert set(coverage_of_labels([Target((1, 1))], ("ER", "PR")).undefined) >= {"auc", "f1"}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0, 2.0], None),
        ([1.0, math.nan, 2.0], None),
        ([1.5, 1.5], "all 2 cases have the value 1.5"),
        ([1.5, math.nan], "its only case has the value 1.5"),
        ([math.nan], None),  # without known values nothing is evaluated
    ],
)
def test_values(values: list[float], reason: str | None) -> None:
    covered = coverage_of_values([Target(value) for value in values])
    assert covered.undefined == (dict.fromkeys(("r2", "pearson", "spearman"), reason) if reason else {})


@pytest.mark.parametrize(
    ("cases", "comparable"),
    [
        ([(5.0, 1), (9.0, 0)], True),
        ([(5.0, 0), (9.0, 1)], False),  # the censored case may have survived longer
        ([(5.0, 0), (9.0, 0)], False),
        ([(5.0, 1)], False),
        ([(math.nan, 0)], True),  # without known labels nothing is evaluated
    ],
)
def test_survival(cases: list[tuple[float, int]], comparable: bool) -> None:
    covered = coverage_of_survival([Target(0, time, event) for time, event in cases])
    assert ("c_index" not in covered.undefined) == comparable
