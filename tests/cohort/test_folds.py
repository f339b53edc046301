import logging
from collections import Counter
from pathlib import Path

import pytest

from e2e_abmilx.cohort.cases import read_cohort
from e2e_abmilx.cohort.label_tables import CohortError
from e2e_abmilx.cohort.splits import assign_folds, check_splits


def _file(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def _folds(spelling: str, count: int = 5, size: int = 4, start: int = 0) -> str:
    rows = [f"s{n},{n % 2},{spelling.format(n // size + start)}" for n in range(count * size)]
    return "\n".join(["slide,label,fold", *rows]) + "\n"


@pytest.mark.parametrize("spelling", ["{}", "{}.0", "fold_{}", "Fold {}", "fold{}", "cv-{}", " {} "])
@pytest.mark.parametrize("start", [0, 1])
def test_a_fold_column_is_used(tmp_path: Path, spelling: str, start: int) -> None:
    cases = read_cohort(_file(tmp_path, _folds(spelling, start=start)))
    for fold in range(start, start + 5):
        split = assign_folds(cases, fold=fold, folds=5, seed=3)
        own = [f"s{n}" for n in range(20) if n // 4 + start == fold]
        assert [case.id for case in split if case.split == "test"] == own
        following = (fold - start + 1) % 5 + start
        assert [case.id for case in split if case.split == "val"] == [
            f"s{n}" for n in range(20) if n // 4 + start == following
        ]
    if start:
        with pytest.raises(CohortError, match=r"fold 0 is not one of the table's own \(1, 2, 3, 4, 5\)"):
            assign_folds(cases, fold=0, folds=5, seed=3)


@pytest.mark.parametrize("name", ["fold", "Folds", "cv_fold", "fold_id", "kfold", "mine"])
def test_names_of_fold_columns(tmp_path: Path, name: str) -> None:
    table = _file(tmp_path, _folds("{}").replace("label,fold", f"label,{name}"))
    cases = read_cohort(table, columns={"fold": "mine"} if name == "mine" else None)
    assert [c.id for c in assign_folds(cases, fold=2, folds=5, seed=0) if c.split == "test"] == [
        "s8",
        "s9",
        "s10",
        "s11",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_folds("{}", count=10), r"10 folds of its own .* 5 are asked for; set data.folds to 10"),
        (_folds("{}", count=2), "2 folds of its own .* must be at least 3"),
        (_folds("{}") + "x,0,\n", r"case x has no fold, but others have \(0, 1, 2, 3, 4\)"),
        ("case,patient,slide,fold\n" + "".join(f"c{n},p{n // 2},s{n},{n % 5}\n" for n in range(10)),
         "group p0 is in two folds: case c0 in 0, case c1 in 1"),
        ("slide,fold\n" + "".join(f"TCGA-AA-000{n // 2}-01Z-00-DX{n},{n % 5}\n" for n in range(10)),
         "group TCGA-AA-0000 is in two folds"),
    ],
)  # fmt: skip
def test_folds_that_cannot_be_used_are_refused(tmp_path: Path, text: str, message: str) -> None:
    cases = read_cohort(_file(tmp_path, text))
    with pytest.raises(CohortError, match=message):
        assign_folds(cases, fold=0, folds=5, seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,fold\na,0\nb,test\n", r":2 and .*:3: column 'fold' mixes fold numbers \('0'\) with other words \('test'\)"),
        ("slide,split\na,0\nb,1\n", r":2: column 'split' has the number 0, which may be .* columns: \{fold: split\}"),
        ("slide,subset\na,1\nb,2\n", "column 'subset' has the number 1"),
        ("slide,split,fold\na,0,1\nb,2,2\n", "column 'split' has the number 0"),
        ("slide,split,fold\na,train,x\nb,train,2\n", "fold 'x' in column 'fold' is not a number"),
        ("slide,cv_fold\na,x\nb,y\n", "fold 'x' in column 'cv_fold' is not a number"),
    ],
)  # fmt: skip
def test_numbers_that_may_be_folds_or_splits_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        read_cohort(_file(tmp_path, text))


def test_folds_need_a_choice(tmp_path: Path) -> None:
    cases = read_cohort(_file(tmp_path, _folds("{}")))
    with pytest.raises(CohortError, match=r"fold numbers \(0, 1, 2, 3, 4\); say which fold .* \(data.fold: 0\)"):
        check_splits(cases, needed=())
    ignored = read_cohort(tmp_path / "labels.csv", columns={"fold": None})
    assert {case.split for case in ignored} == {""}
    assert len({case.id for case in assign_folds(ignored, fold=7, folds=10, seed=0) if case.split == "test"}) == 2


@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "valid", "Test set"), ("train", "train", "holdout"),
                                   ("train", "train", "val")])  # fmt: skip
def test_made_folds_never_replace_the_tables_splits(tmp_path: Path, words: tuple[str, ...]) -> None:
    rows = [f"s{n},{n % 2},{words[n % 3]}" for n in range(30)]
    table = _file(tmp_path, "\n".join(["slide,label,split", *rows]))
    with pytest.raises(CohortError, match=r"has splits of its own \(\d+ train, .*columns: \{split: null\}"):
        assign_folds(read_cohort(table), fold=0, folds=5, seed=0)
    assigned = assign_folds(read_cohort(table, columns={"split": None}), fold=0, folds=5, seed=0)
    assert Counter(case.split for case in assigned) == {"train": 18, "val": 6, "test": 6}


def test_splits_can_be_ignored(tmp_path: Path, shared: Path) -> None:
    """Even if the column is called fold, as in the authors' tables, or the command line passes null as a word."""
    table = shared / "data/labels/authors/subtyping_tcga_brca.csv"
    with pytest.raises(CohortError, match=r"splits of its own \(656 train, 95 val, 234 test\)"):
        assign_folds(read_cohort(table), fold=0, folds=5, seed=0)
    for columns in (
        {"split": None},
        {"split": "None"},
        {"split": "null"},
        {"split": None, "fold": None},
        {"fold": None},
    ):
        cases = read_cohort(table, columns=columns)  # type: ignore[arg-type]
        assert {case.split for case in cases} == {""}
        assert Counter(case.split for case in assign_folds(cases, fold=0, folds=5, seed=0)) == {
            "train": 591, "val": 197, "test": 197,
        }  # fmt: skip


def test_splits_and_folds_in_one_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"s{n},{'test' if n < 5 else 'train'},{n % 5}" for n in range(25)]
    table = _file(tmp_path, "\n".join(["slide,split,fold", *rows]))
    with caplog.at_level(logging.INFO):
        cases = read_cohort(table)
    assert Counter(case.split for case in cases) == {"train": 20, "test": 5}
    assert "column 'fold' is not read, since 'split' states the splits" in caplog.text
    with pytest.raises(CohortError, match="splits of its own"):
        assign_folds(cases, fold=0, folds=5, seed=0)
    for columns in ({"split": None}, {"fold": "fold", "split": None}):
        assigned = assign_folds(read_cohort(table, columns=columns), fold=1, folds=5, seed=0)
        assert [case.id for case in assigned if case.split == "test"] == ["s1", "s6", "s11", "s16", "s21"]
    table.write_text(table.read_text().replace("test", "train"))
    own = assign_folds(
        read_cohort(table), fold=1, folds=5, seed=0
    )  # a split column of training cases only gives way to the folds
    assert [case.id for case in own if case.split == "test"] == ["s1", "s6", "s11", "s16", "s21"]
