from pathlib import Path
from typing import Any

import pytest

from e2e_abmilx.cohort import Case, CohortError, CohortPlan, write_splits
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
    with pytest.raises(CohortError, match=r"1 of 30 cases lack slides.*(.|\n)*skip_missing: true"):
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


def _cases(split: str = "") -> list[Case]:
    return [Case(f"{k:02}", (f"s{k}",), "xy"[k % 2], split=split) for k in range(40)]


def _plan(seed: int, **how: Any) -> CohortPlan:
    return CohortPlan(val_fraction=0.2, split_seed=seed, **how)


def test_made_folds_and_held_out_cases_follow_the_seed() -> None:
    for fold, split in ((0, ""), (None, "train")):
        made = [_plan(seed, fold=fold).split(_cases(split), "fit") for seed in (0, 0, 1)]
        assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("fold", [None, 0])
def test_written_splits_replace_the_seed(tmp_path: Path, fold: int | None) -> None:
    """A file of splits gives the splits that were made with one seed to a plan with another."""
    cases = _cases("" if fold is not None else "train")
    made = _plan(3, fold=fold).split(cases, "fit")
    write_splits(made, tmp_path / "splits.csv")
    assert _plan(4, splits=tmp_path / "splits.csv").split(cases, "fit") == made


def test_selection_on_test_holds_no_case_out() -> None:
    plan = _plan(0, select_on_test=True)
    assert {case.split for case in plan.split(_cases("train"), "fit")} == {"train"}


@pytest.mark.parametrize(("stage", "split"), [("validate", "val"), ("test", "test"), ("predict", "")])
def test_all_cases_of_a_table_without_splits_are_evaluated(stage: str, split: str) -> None:
    assert {case.split for case in _plan(0).split(_cases(), stage)} == {split}
    with pytest.raises(CohortError, match="split '' is not one of train, val, test"):
        _plan(0).split(_cases(), "fit")


def test_sites_stay_in_one_split() -> None:
    cases = [Case(f"TCGA-{site}-000{k}", (f"{site}{k}",), "x") for site in ("AA", "BB", "CC", "DD") for k in range(5)]
    settled = _plan(0, fold=0, folds=3, by_site=True).split(cases, "fit")
    splits = {case.id[5:7]: case.split for case in settled}
    assert [splits[case.id[5:7]] for case in settled] == [case.split for case in settled]
    assert set(splits.values()) == {"train", "val", "test"}


_TARGETS: dict[str, tuple[dict[str, Any], NumberedTargets]] = {
    "label": ({}, NumberedTargets([], ("1", "2", "0"))),
    "multi_label": ({"classes": ["label", "event"]}, NumberedTargets([], ("label", "event"))),
    "survival": ({"time_bins": 2}, NumberedTargets([], ("0", "1", "2"), (10.0, 20.0))),
    "regression": ({}, NumberedTargets([], ("0",))),
}


def _known_plan(folder: Path, target: str) -> tuple[CohortPlan, NumberedTargets]:
    """Return a plan without splits, and what a model of other classes or bins knows."""
    how, known = _TARGETS[target]
    return CohortPlan(_table(folder, ""), target=target, **how), known  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "first", "classes"),
    [
        ("label", [2, 0, 2, 0], ("1", "2", "0")),
        ("multi_label", [(0, 1), (1, 1), (0, 1), (1, 1)], ("label", "event")),
        ("survival", [0, 0, 0, 0], ("0", "1", "2")),
        ("regression", [0.0, 1.0, 0.0, 1.0], ()),
    ],
)
@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_a_trained_model_numbers_the_targets(
    tmp_path: Path, target: str, first: list[object], classes: tuple[str, ...], stage: str
) -> None:
    plan, known = _known_plan(tmp_path, target)
    numbered = plan.number(plan.read(SLIDES, Path("cache"), stage), stage, known)
    assert list(numbered.numbers[:4]) == first
    assert (numbered.classes, numbered.edges) == (classes, known.edges)
    if target == "survival":  # bins end before 10 and 20 months, and the times are 1 … 30
        assert list(numbered.numbers) == [0] * 9 + [1] * 10 + [2] * 11


@pytest.mark.parametrize(
    ("target", "unknown"), [("label", -1), ("multi_label", (-1, -1)), ("survival", -1), ("regression", None)]
)
@pytest.mark.parametrize("some", [True, False])
def test_cases_without_targets_are_predicted(tmp_path: Path, target: str, unknown: object, some: bool) -> None:
    plan, known = _known_plan(tmp_path, target)
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    emptied = [f"{line.split(',')[0]},,,," for line in lines[1:]]
    (tmp_path / "labels.csv").write_text("\n".join([lines[0], *emptied[:20], *(lines[21:] if some else emptied[20:])]))
    cases = plan.read(SLIDES, Path("cache"), "predict")
    for model in (known,) if target == "survival" else (known, None):
        numbered = plan.number(cases, "predict", model)
        missing = numbered.numbers[:20] if some else numbered.numbers
        assert all(number != number if unknown is None else number == unknown for number in missing)  # noqa: PLR0124
        if some:
            assert all(number not in (unknown, None) for number in numbered.numbers[20:])
    assert plan.number(cases, "predict", known).edges == known.edges
    assert len(plan.number(cases, "predict", known).numbers) == 30
    for stage in ("fit", "validate", "test"):
        with pytest.raises(CohortError, match="complete"):
            plan.number(cases, stage, known)


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_a_label_that_the_model_does_not_know_is_refused(tmp_path: Path, stage: str) -> None:
    plan = CohortPlan(_table(tmp_path, ""))
    cases = plan.read(SLIDES, Path("cache"), stage)
    with pytest.raises(CohortError, match=r"label '1' of case s1 is not one of the classes \['0', 'one'\]"):
        plan.number(cases, stage, NumberedTargets([], ("0", "one")))


def test_a_model_may_know_classes_that_the_table_lacks(tmp_path: Path) -> None:
    plan = CohortPlan(_table(tmp_path, ""))
    cases = [case for case in plan.read(SLIDES, Path("cache"), "test") if case.label == "1"]
    assert plan.number(cases, "test", NumberedTargets([], ("0", "1"))) == NumberedTargets([1] * 15, ("0", "1"))


def test_slides_without_a_table_take_the_models_classes() -> None:
    cases = CohortPlan().read(SLIDES, Path("cache"), "predict")
    for target, (how, known) in _TARGETS.items():
        numbered = CohortPlan(target=target, **how).number(cases, "predict", known)  # type: ignore[arg-type]
        assert (numbered.classes, numbered.edges) == (known.classes, known.edges)
        assert len(numbered.numbers) == 30


def test_bins_of_a_model_with_unknown_edges_are_those_of_the_table(tmp_path: Path) -> None:
    """The first release did not record edges; one bin, of a Cox model, has none."""
    plan = CohortPlan(_table(tmp_path), target="survival", time_bins=3)
    cases = plan.read(SLIDES, Path("cache"), "fit")
    assert plan.number(cases, "test", NumberedTargets([], ("0", "1", "2"))) == plan.number(cases)
    assert plan.number(cases, "test", NumberedTargets([], ("0",))).classes == ("0",)
