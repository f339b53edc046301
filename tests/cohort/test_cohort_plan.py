from pathlib import Path

import pytest

from e2e_abmilx.cohort import CohortError, CohortPlan
from e2e_abmilx.cohort.targets import NumberedTargets

SLIDES = [f"s{k}" for k in range(30)]


def _table(folder: Path, splits: str = "train") -> Path:
    """Thirty slides of two classes, whose split words repeat in order."""
    words = splits.split(",")
    rows = [f"s{k},{k % 2},{k + 1},1,{words[k % len(words)]}" for k in range(30)]
    (folder / "labels.csv").write_text("\n".join(["slide,label,time,event,split", *rows]) + "\n")
    return folder / "labels.csv"


def _splits(plan: CohortPlan) -> dict[str, str]:
    return {case.id: case.split for case in plan.read(SLIDES, Path("cache"), "fit")}


def test_held_out_cases_follow_the_split_seed(tmp_path: Path) -> None:
    table = _table(tmp_path)
    first = _splits(CohortPlan(table))
    assert first == _splits(CohortPlan(table, split_seed=0))
    assert first != _splits(CohortPlan(table, split_seed=1))
    folds = [_splits(CohortPlan(table, columns={"split": None}, fold=0, split_seed=seed)) for seed in (0, 1)]
    assert folds[0] != folds[1]


def test_missing_slides_change_no_other_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = CohortPlan(_table(tmp_path))
    with pytest.raises(CohortError, match=r"1 of 30 cases lack slides.*(.|\n)*data.skip_missing: true"):
        plan.read(SLIDES[1:], Path("cache"), "fit")
    plan.skip_missing = True
    found = {case.id: case.split for case in plan.read(SLIDES[1:], Path("cache"), "fit")}
    assert found == {case: split for case, split in _splits(plan).items() if case != "s0"}
    assert "no slide 's0' in cache" in caplog.text


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_without_a_table_slides_can_only_be_predicted(stage: str) -> None:
    plan = CohortPlan()
    with pytest.raises(CohortError, match="label table slides can only be predicted"):
        plan.read(SLIDES, Path("cache"), stage)
    cases = plan.read(SLIDES, Path("cache"), "predict")
    assert [case.slides for case in cases] == [(slide,) for slide in SLIDES]
    assert plan.number(cases) == NumberedTargets([-1] * 30, ())


def test_targets_are_numbered_by_their_kind(tmp_path: Path) -> None:
    table = _table(tmp_path, "train,val,test")
    for how, classes in (
        ({}, ("0", "1")),
        ({"classes": [1, 0]}, ("1", "0")),
        ({"target": "multi_label", "classes": ["label"]}, ("label",)),
        ({"target": "survival", "time_bins": 3}, ("0", "1", "2")),
    ):
        plan = CohortPlan(table, **how)  # type: ignore[arg-type]
        numbers = plan.number(plan.read(SLIDES, Path("cache"), "fit"))
        assert numbers.classes == classes
        assert len(numbers.edges) == (2 if how.get("target") == "survival" else 0)
        assert len(numbers.numbers) == 30


def test_selection_on_test_joins_validation_and_test_cases(tmp_path: Path) -> None:
    table = _table(tmp_path, "train,val,test")
    honest = CohortPlan(table)
    cases = honest.read(SLIDES, Path("cache"), "fit")
    assert honest.join_held_out(cases) == cases
    joined = CohortPlan(table, select_on_test=True).join_held_out(cases)
    assert [case.split for case in joined] == ["train", "test", "test"] * 10


def test_selection_on_test_holds_nothing_out(tmp_path: Path) -> None:
    plan = CohortPlan(_table(tmp_path, "train,test"), select_on_test=True)
    assert set(_splits(plan).values()) == {"train", "test"}


def test_classes_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match=r"classes is \['a', 'a'\] for target multi_label"):
        CohortPlan(target="multi_label", classes=["a", "a"])
    with pytest.raises(CohortError, match="YAML reads no, yes"):
        CohortPlan(classes=[False, True])
