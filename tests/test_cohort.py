from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.cohort import (
    Case,
    CohortError,
    assign_folds,
    check_splits,
    encode_labels,
    match_slides,
    read_cohort,
)


def _table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def test_rows_become_cases(tmp_path: Path) -> None:
    table = _table(tmp_path, "case,slide,label,split\n007,a.svs,1,train\n007,b.svs,1,train\n8,c.v2,0,test\n")
    first, second = read_cohort(table)
    assert first == Case("007", ("a", "b"), "1", first.time, 0, "train", "007")
    assert second.slides == ("c.v2",)  # only known endings are taken off
    assert first.id == "007"  # ids are text: zeros survive


def test_columns_are_recognised_or_stated(tmp_path: Path) -> None:
    (case,) = read_cohort(_table(tmp_path, "Patient_ID,image,Target,Survival_Months,event\np,s,x,3.5,1\n"))
    assert (case.id, case.slides, case.label, case.time, case.event) == ("p", ("s",), "x", 3.5, 1)
    (case,) = read_cohort(
        _table(tmp_path, "image,tma,label,grade\ns,t,0,2\n"), columns={"label": "grade", "group": "tma"}
    )
    assert (case.label, case.group) == ("2", "t")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na,1\n", "no column of slide names"),
        ("slide,label\n", "no rows"),
        ("slide,label\n,1\n", ":2: the slide or case is empty"),
        ("case,slide,label,split\nc,a,1,train\nc,b,1,test\n", r":2 and .*:3: case c is in two splits"),
        ("case,slide,label\nc,a,1\nc,b,0\n", r"case c has two labels \('1' and '0'\)"),
        ("slide,time,event\na,-3,1\n", "time '-3' is negative"),
        ("slide,time,event\na,soon,1\n", "time 'soon' is not a number"),
        ("slide,time,event\na,3,dead\n", "event 'dead' is neither"),
    ],
)
def test_broken_tables_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        read_cohort(_table(tmp_path, text))


def test_absent_table_and_column(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no such label table"):
        read_cohort(tmp_path / "absent.csv")
    with pytest.raises(CohortError, match="no column 'grade'"):
        read_cohort(_table(tmp_path, "slide,label\na,1\n"), columns={"label": "grade"})


def test_labels_are_numbered_in_order() -> None:
    cases = [Case(str(k), (str(k),), label) for k, label in enumerate(["10", "2", "2"])]
    assert encode_labels(cases, None) == ([1, 0, 0], ("2", "10"))
    assert encode_labels(cases, ["10", "2"]) == ([0, 1, 1], ("10", "2"))
    with pytest.raises(CohortError, match="label '2' of case 1 is not one of the classes"):
        encode_labels(cases, ["10"])


def test_unmatched_rows_and_slides_are_listed_with_near_misses(tmp_path: Path) -> None:
    cases = [Case("a", ("TCGA-01",)), Case("b", ("TCGA-02",)), Case("c", ("x",))]
    matched, complaints = match_slides(cases, ["TCGA-01", "TCGA-O2", "extra"], tmp_path)
    assert [case.id for case in matched] == ["a"]
    assert any("case b: no slide 'TCGA-02'" in line and "is it 'TCGA-O2'?" in line for line in complaints)
    assert any("case c" in line and "is it" not in line for line in complaints)
    assert any("slide 'extra'" in line and "no label" in line for line in complaints)


def test_splits_must_be_known_and_not_empty() -> None:
    cases = [Case("a", ("a",), split="train"), Case("b", ("b",), split="test")]
    with pytest.raises(CohortError, match="the val split has no case"):
        check_splits(cases, needed=("train", "val"))
    check_splits(cases, needed=("test",))
    with pytest.raises(CohortError, match="split 'dev' is not one of"):
        check_splits([Case("a", ("a",), split="dev")], needed=())


@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from("xyz")), min_size=30, max_size=80),
    st.integers(3, 5),
    st.integers(0, 3),
)
def test_folds_keep_groups_whole_and_test_every_case_once(
    rows: list[tuple[int, str]], folds: int, seed: int
) -> None:
    cases = [Case(str(k), (str(k),), label, group=str(group)) for k, (group, label) in enumerate(rows)]
    if len({case.group for case in cases}) < folds:
        with pytest.raises(CohortError, match="groups cannot make"):
            assign_folds(cases, fold=0, folds=folds, seed=seed)
        return
    tested: list[str] = []
    for fold in range(folds):
        split = assign_folds(cases, fold=fold, folds=folds, seed=seed)
        tested += [case.id for case in split if case.split == "test"]
        for group in {case.group for case in split}:
            assert len({case.split for case in split if case.group == group}) == 1
        assert {case.split for case in split} == {"train", "val", "test"}
    assert sorted(tested) == sorted(case.id for case in cases)


def test_folds_are_stratified_on_the_real_cohort(shared: Path) -> None:
    cases = read_cohort(shared / "data/ucsb_breast/labels.csv", columns={"group": "tma"})
    assert len(cases) == 58
    for fold in range(5):
        split = assign_folds(cases, fold=fold, folds=5, seed=0)
        tested = [case.label for case in split if case.split == "test"]
        assert {"0", "1"} == set(tested)
        assert 8 <= len(tested) <= 16
