"""Values that follow from cases and slides."""

from pathlib import Path
from typing import Any

import pytest

from e2e_abmilx.cohort import Case, CohortError, CohortPlan
from e2e_abmilx.slides import Resolution
from e2e_abmilx.study.choices import (
    choose_bins,
    choose_folds,
    choose_training,
    count_outcomes,
    doubts_of_cases,
    doubts_of_slides,
    explain_cut,
    split_cases,
)
from e2e_abmilx.study.survey import Cut, Survey
from e2e_abmilx.study.table import Table

CUT = Cut((0.5, 1.0), 256, [300], {})


def _table(cases: list[Case], target: Any = "label", classes: tuple[str, ...] = ("a", "b")) -> Table:
    return Table(target, {}, classes, {"slide": "slide"}, [], len(cases), 0, cases, [])


def _cases(**counts: int) -> list[Case]:
    return [Case(f"{name}{n}", (f"{name}{n}",), name) for name, count in counts.items() for n in range(count)]


@pytest.mark.parametrize(("rare", "folds"), [(2, 3), (3, 3), (4, 4), (5, 5), (50, 5)])
def test_a_rare_class_makes_fewer_folds(rare: int, folds: int) -> None:
    cases = _cases(a=60, b=rare)
    found = choose_folds(_table(cases), cases)
    assert (found["fold"], found["folds"]) == (0, folds)
    assert (f"the rarest has {rare}" in found["why"]["folds"]) == (folds < 5)


def test_slides_of_one_patient_count_once() -> None:
    cases = [case._replace(group="p" if case.label == "b" else "") for case in _cases(a=30, b=30)]
    assert choose_folds(_table(cases), cases)["folds"] == 3


def test_splits_and_folds_of_the_table_are_kept() -> None:
    cases = _cases(a=6, b=6)
    words = [case._replace(split="train") for case in cases]
    assert choose_folds(_table(words), words) == {"fold": None}
    numbers = [case._replace(split=str(1 + n % 4)) for n, case in enumerate(cases)]
    found = choose_folds(_table(numbers), numbers)
    assert (found["fold"], found["folds"]) == (1, 4)


def test_missing_cases_change_no_split() -> None:
    cases = _cases(a=20, b=20)
    plan = CohortPlan(Path("labels.csv"), fold=0)
    whole = {case.id: case.split for case in split_cases(plan, _table(cases), cases)}
    part = split_cases(plan, _table(cases), cases[3:])
    assert len(part) == 37
    assert all(whole[case.id] == case.split for case in part)


@pytest.mark.parametrize(("events", "bins"), [(40, 4), (3, 3), (2, 2)])
def test_few_events_make_few_bins(events: int, bins: int) -> None:
    cases = [
        Case(f"c{n}", (f"c{n}",), time=n + 1.0, event=int(n < events), split="val" if n % 5 == 4 else "train")
        for n in range(50)
    ]
    plan = CohortPlan(Path("labels.csv"), target="survival")
    table = _table(cases, "survival", ())
    found, number = choose_bins(plan, table, cases)
    assert (number, len(found)) == (bins, 50)
    with pytest.raises(CohortError, match="cannot fill 2 time bins"):
        choose_bins(plan, table, [case._replace(event=0) for case in cases])


@pytest.mark.parametrize(
    ("patches", "train", "expected"),
    [
        (3000, 500, (256, 4, 20)),
        (300, 100, (256, 4, 40)),
        (42, 34, (32, 8, 80)),
        (6, 12, (8, 3, 80)),
        (40, 3, (32, 1, 80)),
    ],
)
def test_bags_batches_and_epochs(patches: int, train: int, expected: tuple[int, int, int]) -> None:
    cases = [case._replace(split="train") for case in _cases(a=train)]
    cases += [case._replace(split="val") for case in _cases(b=8)]
    found = choose_training(_table(cases), cases, CUT._replace(patches=[patches]))
    assert (found["bag"], found["batch"], found["epochs"]) == expected


@pytest.mark.parametrize(("rare", "monitor"), [(4, "val/loss"), (5, "val/auc")])
def test_few_validation_cases_choose_by_the_loss(rare: int, monitor: str) -> None:
    cases = [case._replace(split="train") for case in _cases(a=20, b=20)]
    cases += [case._replace(split="val", id=f"val {case.id}") for case in _cases(a=20, b=rare)]
    found = choose_training(_table(cases), cases, CUT)
    assert found["monitor"] == monitor
    assert (f"has {rare} validation cases" in found["why"].get("monitor", "")) == (monitor == "val/loss")


def test_outcomes_of_several_labels() -> None:
    cases = [Case("1", ("1",), labels=(1, -1)), Case("2", ("2",), labels=(0, 1))]
    table = _table(cases, "multi_label", ("ER", "PR"))
    assert count_outcomes(table, cases) == {"ER +": 1, "ER -": 1, "PR +": 1}
    assert count_outcomes(table, cases[:1]) == {"ER +": 1, "ER -": 0, "PR +": 0}


def test_rare_and_absent_classes_are_doubtful() -> None:
    cases = [case._replace(split="train") for case in _cases(a=40, b=5)]
    cases += [case._replace(split="val") for case in _cases(a=10)]
    doubts = doubts_of_cases(_table(cases), cases)
    assert [doubt for doubt in doubts if "val split has no case of b" in doubt]
    assert [doubt for doubt in doubts if "b (5 of 55)" in doubt and "--data.balanced true" in doubt]
    assert [doubt for doubt in doubts if "no test cases" in doubt]


def test_doubts_of_slides_name_the_slides() -> None:
    cases = [case._replace(group=case.id) for case in _cases(a=3, b=3)]
    resolutions = {case.id: Resolution(0.25, "x") for case in cases} | {"b2": Resolution(1.0, "x")}
    survey = Survey(resolutions, [], {}, [("a0", "b0", "the same bytes")], 6)
    table = _table([*cases, Case("c", ("c",), "a")])
    doubts = doubts_of_slides(table, cases, survey, CUT._replace(without={"a1": "a1 has no patch"}))
    assert len(doubts) == 4
    assert "1 of 7 cases lack slides" in doubts[0]
    assert "`a0` and `b0`" in doubts[1]
    assert "labelled a and b" in doubts[1]
    assert "a1 has no patch" in doubts[2]
    assert "`b2`, have up to 1 µm/px" in doubts[3]


def test_the_reasons_name_the_values() -> None:
    survey = Survey({"a": Resolution(0.2, "assumed")}, [], {}, [], 1)
    assert "finest that all have is used (0.2)" in explain_cut(Cut((0.2, 0.4), 128, [40], {}), survey)["mpp"]
    assert "about 40 patches" in explain_cut(Cut((0.2, 0.4), 128, [40], {}), survey)["patch_size"]
    assert "224" in explain_cut(CUT, survey)["patch_size"]
