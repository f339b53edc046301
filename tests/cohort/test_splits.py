import logging
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.cohort.cases import read_cohort
from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import CohortError
from e2e_abmilx.cohort.split_files import read_splits, write_splits
from e2e_abmilx.cohort.splits import SPLITS, assign_folds, check_splits, group_by_site, hold_out_validation

ROWS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("xyz")), min_size=8, max_size=80)


def _grouped(rows: list[tuple[int, str]], split: str = "") -> list[Case]:
    return [
        Case(f"{k:02}", (f"s{k}",), label, split=split, group=f"g{group}")
        for k, (group, label) in enumerate(rows)
    ]


def _single(labels: list[str], split: str = "") -> list[Case]:
    return [Case(f"{k:02}", (f"s{k}",), label, split=split) for k, label in enumerate(labels)]


def _counts(cases: list[Case], split: str) -> Counter[str]:
    return Counter(case.label for case in cases if case.split == split)


def _parts(cases: list[Case]) -> dict[str, str]:
    return {case.id: case.split for case in cases}


# Made folds ------------------------------------------------------------------------------------------------------


@given(ROWS, st.integers(3, 5), st.integers(0, 3))
def test_folds_keep_groups_whole_and_test_every_case_once(
    rows: list[tuple[int, str]], folds: int, seed: int
) -> None:
    cases = _grouped(rows)
    if len({case.group for case in cases}) < folds:
        with pytest.raises(CohortError, match="groups of cases cannot make"):
            assign_folds(cases, fold=0, folds=folds, seed=seed)
        return
    tested: list[str] = []
    for fold in range(folds):
        split = assign_folds(cases, fold=fold, folds=folds, seed=seed)
        assert [case._replace(split="") for case in split] == cases
        check_splits(split, needed=SPLITS)  # no group in two, none empty
        tested += [case.id for case in split if case.split == "test"]
        following = assign_folds(cases, fold=(fold + 1) % folds, folds=folds, seed=seed)
        assert {case.id for case in split if case.split == "val"} == {
            case.id for case in following if case.split == "test"
        }
    assert sorted(tested) == sorted(case.id for case in cases)


@given(st.lists(st.sampled_from("xyz"), min_size=5, max_size=90), st.integers(3, 5), st.integers(0, 3))
def test_folds_of_single_cases_have_equal_shares_of_each_class(
    labels: list[str], folds: int, seed: int
) -> None:
    cases = _single(labels)
    counts = [_counts(assign_folds(cases, fold=k, folds=folds, seed=seed), "test") for k in range(folds)]
    for label in set(labels):
        each = [count[label] for count in counts]
        assert max(each) - min(each) <= 1


@given(st.lists(st.integers(0, 12), min_size=30, max_size=90), st.integers(3, 5))
def test_folds_of_groups_differ_by_the_largest_group_at_most(groups: list[int], folds: int) -> None:
    cases = _grouped([(group, "x") for group in groups])
    if len(set(groups)) < folds:
        return
    sizes = [_counts(assign_folds(cases, fold=k, folds=folds, seed=0), "test")["x"] for k in range(folds)]
    assert max(sizes) - min(sizes) <= max(Counter(groups).values())


@given(ROWS, st.randoms(use_true_random=False))
def test_splits_depend_on_seed_and_cases_not_on_their_order(
    rows: list[tuple[int, str]], shuffler: random.Random
) -> None:
    cases = _grouped(rows, split="train") + _grouped([(20, "x"), (21, "y"), (22, "z")], split="train")
    cases = [case._replace(id=f"{k:03}") for k, case in enumerate(cases)]
    shuffled = shuffler.sample(cases, len(cases))
    for make in (
        lambda these: assign_folds(these, fold=1, folds=3, seed=7),
        lambda these: hold_out_validation(these, seed=7),
    ):
        assert _parts(make(cases)) == _parts(make(shuffled))


@pytest.mark.parametrize("seed", range(5))
def test_large_groups_are_dealt_first(seed: int) -> None:
    cases = _grouped([(group, "x") for group in [*range(12), *[12] * 6]])
    for fold in range(3):
        assert _counts(assign_folds(cases, fold=fold, folds=3, seed=seed), "test").total() == 6


def test_another_seed_makes_other_splits() -> None:
    cases = _single(["x", "y"] * 20, split="train")
    assert len({str(_parts(assign_folds(cases, fold=0, folds=5, seed=seed))) for seed in range(10)}) == 10
    assert len({str(_parts(hold_out_validation(cases, seed=seed))) for seed in range(10)}) == 10


def test_folds_may_be_stratified_by_event() -> None:
    cases = [Case(str(k), (str(k),), str(k), 1.0 + k, int(k % 10 == 0)) for k in range(50)]
    for fold in range(5):
        split = assign_folds(cases, fold=fold, folds=5, seed=0, stratify_by="event")
        assert sum(case.event for case in split if case.split == "test") == 1


@given(
    st.lists(st.tuples(*[st.sampled_from([0, 0, 0, 1, 1, -1])] * 4), min_size=40, max_size=90),
    st.integers(0, 3),
)
def test_folds_may_be_stratified_by_several_labels(rows: list[tuple[int, ...]], seed: int) -> None:
    """Each label of each class by itself: of four classes nearly all combinations are rare."""
    cases = [Case(f"{number:02}", (f"s{number}",), labels=labels) for number, labels in enumerate(rows)]
    parts = [
        [case for case in assign_folds(cases, fold=fold, folds=4, seed=seed, stratify_by="labels")
         if case.split == "test"]
        for fold in range(4)
    ]  # fmt: skip
    assert sorted(case.id for part in parts for case in part) == [case.id for case in cases]
    for number in range(4):
        positives = [sum(case.labels[number] == 1 for case in part) for part in parts]
        assert max(positives) - min(positives) <= 4


@pytest.mark.parametrize("fold", range(5))
def test_folds_of_the_real_cohort(shared: Path, fold: int) -> None:
    cases = read_cohort(shared / "data/ucsb_breast/labels.csv", columns={"group": "tma"})
    tested = _counts(assign_folds(cases, fold=fold, folds=5, seed=0), "test")
    assert set(tested) == {"0", "1"}
    assert 8 <= tested.total() <= 16


def test_sites_stay_whole(shared: Path) -> None:
    cases = group_by_site(read_cohort(shared / "data/labels/survpath/tcga_hnsc.csv"))
    stated = read_cohort(shared / "data/labels/survpath/tcga_hnsc.csv", columns={"group": "site"})
    assert cases == stated
    split = assign_folds(cases, fold=0, folds=3, seed=0, stratify_by="event")
    check_splits(split, needed=SPLITS)
    # one site has 117 of the 394 cases
    assert all(100 < count < 165 for count in Counter(case.split for case in split).values())
    with pytest.raises(
        CohortError, match=r"case 'x' is not named by a TCGA barcode.*columns: \{group: NAME\}"
    ):
        group_by_site([Case("x", ("x",))])


@pytest.mark.parametrize(("fold", "folds"), [(0, 2), (3, 3), (-1, 3)])
def test_impossible_folds_are_refused(fold: int, folds: int) -> None:
    with pytest.raises(CohortError, match=f"fold {fold} of {folds}: there must be at least 3 folds"):
        assign_folds(_single(["x"] * 9), fold=fold, folds=folds, seed=0)


# The table's own folds and splits -------------------------------------------------------------------------------


def _folds(spelling: str, count: int = 5, size: int = 4, start: int = 0) -> str:
    rows = [f"s{n},{n % 2},{spelling.format(n // size + start)}" for n in range(count * size)]
    return "\n".join(["slide,label,fold", *rows]) + "\n"


@pytest.mark.parametrize("spelling", ["{}", "{}.0", "fold_{}", "Fold {}", "fold{}", "cv-{}", " {} "])
@pytest.mark.parametrize("start", [0, 1])
def test_a_column_of_folds_is_used(tmp_path: Path, spelling: str, start: int) -> None:
    cases = read_cohort(_file(tmp_path, _folds(spelling, start=start), "labels.csv"))
    for fold in range(start, start + 5):
        split = assign_folds(cases, fold=fold, folds=5, seed=3)
        own = [f"s{n}" for n in range(20) if n // 4 + start == fold]
        assert [case.id for case in split if case.split == "test"] == own
        following = (fold - start + 1) % 5 + start
        assert [case.id for case in split if case.split == "val"] == [
            f"s{n}" for n in range(20) if n // 4 + start == following
        ]
    if start:
        with pytest.raises(CohortError, match=r"fold 0 is none of the table's own \(1, 2, 3, 4, 5\)"):
            assign_folds(cases, fold=0, folds=5, seed=3)


@pytest.mark.parametrize("name", ["fold", "Folds", "cv_fold", "fold_id", "kfold", "mine"])
def test_names_of_columns_of_folds(tmp_path: Path, name: str) -> None:
    table = _file(tmp_path, _folds("{}").replace("label,fold", f"label,{name}"), "labels.csv")
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
        (_folds("{}") + "x,0,\n", r"case x has no fold, others have \(0, 1, 2, 3, 4\)"),
        ("case,patient,slide,fold\n" + "".join(f"c{n},p{n // 2},s{n},{n % 5}\n" for n in range(10)),
         "group p0 is in two folds: case c0 in 0, case c1 in 1"),
        ("slide,fold\n" + "".join(f"TCGA-AA-000{n // 2}-01Z-00-DX{n},{n % 5}\n" for n in range(10)),
         "group TCGA-AA-0000 is in two folds"),
    ],
)  # fmt: skip
def test_folds_that_cannot_be_used_are_refused(tmp_path: Path, text: str, message: str) -> None:
    cases = read_cohort(_file(tmp_path, text, "labels.csv"))
    with pytest.raises(CohortError, match=message):
        assign_folds(cases, fold=0, folds=5, seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,fold\na,0\nb,test\n", r":2 and .*:3: column 'fold' has numbers of folds \('0'\) and other words \('test'\)"),
        ("slide,split\na,0\nb,1\n", r":2: column 'split' has the number 0, which may be .* columns: \{fold: split\}"),
        ("slide,subset\na,1\nb,2\n", "column 'subset' has the number 1"),
        ("slide,split,fold\na,0,1\nb,2,2\n", "column 'split' has the number 0"),
        ("slide,split,fold\na,train,x\nb,train,2\n", "fold 'x' in column 'fold' is no number"),
        ("slide,cv_fold\na,x\nb,y\n", "fold 'x' in column 'cv_fold' is no number"),
    ],
)  # fmt: skip
def test_numbers_that_may_be_folds_or_splits_are_asked_about(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        read_cohort(_file(tmp_path, text, "labels.csv"))


def test_folds_without_a_choice_are_asked_about(tmp_path: Path) -> None:
    cases = read_cohort(_file(tmp_path, _folds("{}"), "labels.csv"))
    with pytest.raises(
        CohortError, match=r"numbers of folds \(0, 1, 2, 3, 4\); say which fold .* \(data.fold: 0\)"
    ):
        check_splits(cases, needed=())
    ignored = read_cohort(tmp_path / "labels.csv", columns={"fold": None})
    assert {case.split for case in ignored} == {""}
    assert (
        len({case.id for case in assign_folds(ignored, fold=7, folds=10, seed=0) if case.split == "test"})
        == 2
    )


@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "valid", "Test set"), ("train", "train", "holdout"),
                                   ("train", "train", "val")])  # fmt: skip
def test_made_folds_never_discard_the_tables_splits(tmp_path: Path, words: tuple[str, ...]) -> None:
    rows = [f"s{n},{n % 2},{words[n % 3]}" for n in range(30)]
    table = _file(tmp_path, "\n".join(["slide,label,split", *rows]), "labels.csv")
    with pytest.raises(CohortError, match=r"has splits of its own \(\d+ train, .*columns: \{split: null\}"):
        assign_folds(read_cohort(table), fold=0, folds=5, seed=0)
    told = assign_folds(read_cohort(table, columns={"split": None}), fold=0, folds=5, seed=0)
    assert Counter(case.split for case in told) == {"train": 18, "val": 6, "test": 6}


def test_splits_that_are_not_to_be_read(tmp_path: Path, shared: Path) -> None:
    """Also under the name fold, as in the authors' tables, and as the command line hands on null."""
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
    table = _file(tmp_path, "\n".join(["slide,split,fold", *rows]), "labels.csv")
    with caplog.at_level(logging.INFO):
        cases = read_cohort(table)
    assert Counter(case.split for case in cases) == {"train": 20, "test": 5}
    assert "column 'fold' is not read, since 'split' says the splits" in caplog.text
    with pytest.raises(CohortError, match="splits of its own"):
        assign_folds(cases, fold=0, folds=5, seed=0)
    for columns in ({"split": None}, {"fold": "fold", "split": None}):
        told = assign_folds(read_cohort(table, columns=columns), fold=1, folds=5, seed=0)
        assert [case.id for case in told if case.split == "test"] == ["s1", "s6", "s11", "s16", "s21"]
    table.write_text(table.read_text().replace("test", "train"))
    own = assign_folds(
        read_cohort(table), fold=1, folds=5, seed=0
    )  # nothing but training: the folds say more
    assert [case.id for case in own if case.split == "test"] == ["s1", "s6", "s11", "s16", "s21"]


# Validation carved from training ---------------------------------------------------------------------------------


@given(st.lists(st.sampled_from("xyz"), min_size=8, max_size=90), st.sampled_from([0.125, 0.2, 0.5]))
def test_validation_has_its_share_of_each_class(labels: list[str], share: float) -> None:
    cases = _single(labels, split="train")
    carved = _counts(hold_out_validation(cases, share=share, seed=0), "val")
    assert carved.total() >= 1
    for label, count in Counter(labels).items():
        assert abs(carved[label] - share * count) <= 1


@given(ROWS, st.integers(0, 3))
def test_validation_takes_whole_groups_from_training_only(rows: list[tuple[int, str]], seed: int) -> None:
    half = len(rows) // 2
    train = _grouped(rows[:half], "train")
    test = [case._replace(id=f"t{case.id}", group=f"t{case.group}") for case in _grouped(rows[half:], "test")]
    if len({case.group for case in train}) < 2:
        with pytest.raises(CohortError, match="1 groups of cases cannot make 2 parts"):
            hold_out_validation(train + test, seed=seed)
        return
    carved = hold_out_validation(train + test, seed=seed)
    check_splits(carved, needed=SPLITS)
    assert carved[half:] == test


def test_validation_of_the_authors_survival_split(shared: Path) -> None:
    cases = read_cohort(shared / "data/labels/authors/survival_tcga_brca_3fold/fold_0.csv")
    carved = hold_out_validation(cases, seed=0, stratify_by="event")
    assert Counter(case.split for case in carved) == {"train": 587, "val": 84, "test": 336}
    events = {split: sum(case.event for case in carved if case.split == split) for split in SPLITS}
    assert events["val"] == round((events["train"] + events["val"]) / 8)


@pytest.mark.parametrize("share", [0, 1, -0.1, 12.5])
def test_impossible_shares_are_refused(share: float) -> None:
    with pytest.raises(CohortError, match=f"the validation share is {share}"):
        hold_out_validation(_single(["x"] * 9, "train"), share=share, seed=0)


# Files of splits -------------------------------------------------------------------------------------------------


def _file(folder: Path, text: str, name: str = "splits_0.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_written_splits_are_read_again(tmp_path: Path) -> None:
    cases = assign_folds(_single(["x", "y"] * 9), fold=0, folds=3, seed=0)
    write_splits(cases, tmp_path / "splits.csv")
    assert (tmp_path / "splits.csv").read_text().startswith(f"case,split\n00,{cases[0].split}\n01,")
    assert read_splits([case._replace(split="") for case in cases], tmp_path / "splits.csv") == cases


def test_clam_files_list_slides_or_cases(tmp_path: Path) -> None:
    cases = [Case("007", ("a", "b")), Case("8", ("c",)), Case("9", ("d",)), Case("10", ("e",))]
    _file(tmp_path, ",train,val,test\n0,a,c.svs,9\n1,b,,\n")
    found = read_splits(cases, tmp_path, fold=0)
    assert _parts(found) == {"007": "train", "8": "val", "9": "test"}
    _file(tmp_path, ",train,val\n0,007,8\n1,9,10\n", "splits_1.csv")
    assert _parts(read_splits(cases, tmp_path, fold=1)) == {
        "007": "train",
        "8": "val",
        "9": "train",
        "10": "val",
    }


@pytest.mark.parametrize(
    "header",
    [
        "train,valid,test",
        "Train,Validation,Test",
        "training,val,testing",
        ",TRAIN,TUNE,TEST",
        "train_set,valid_set,test_set",
    ],
)
def test_columns_of_splits_in_other_words(tmp_path: Path, header: str) -> None:
    row = "," * header.startswith(",") + "00,01,02"
    cases = _single(["x"] * 3)
    assert _parts(read_splits(cases, _file(tmp_path, f"{header}\n{row}\n"))) == {
        "00": "train",
        "01": "val",
        "02": "test",
    }


@pytest.mark.parametrize(
    ("column", "numbers"),
    [
        ("slide", {"1": "test", "2": "train"}),
        ("case", {"1": "train", "2": "test"}),
        ("patient", {"1": "train", "2": "test"}),
    ],
)
def test_names_are_looked_up_where_their_column_says(
    tmp_path: Path, column: str, numbers: dict[str, str]
) -> None:
    """Case 1 has slide 2, and case 2 has slide 1."""
    cases = [Case("1", ("2",)), Case("2", ("1",))]
    file = _file(tmp_path, f"{column},split\n1,train\n2,test\n")
    assert _parts(read_splits(cases, file)) == numbers


@pytest.mark.parametrize("text", ["train,test\n1,2\n", "id,split\n1,train\n2,test\n"])
def test_names_that_may_be_cases_or_slides_are_asked_about(tmp_path: Path, text: str) -> None:
    cases = [Case("1", ("2",)), Case("2", ("1",))]
    with pytest.raises(
        CohortError, match=r"'1' may be one case, or a slide or patient of another; list the names"
    ):
        read_splits(cases, _file(tmp_path, text))
    cases = [Case("1", ("2",)), Case("2", ("3",))]  # 1 is no slide, so that they are cases
    assert _parts(read_splits(cases, _file(tmp_path, text))) == {"1": "train", "2": "test"}
    same = [Case("1", ("1", "3")), Case("2", ("2",))]
    assert _parts(read_splits(same, _file(tmp_path, text))) == {"1": "train", "2": "test"}


def test_slides_are_looked_up_among_slides_only(tmp_path: Path) -> None:
    cases = [Case("a", ("s",)), Case("b", ("t",))]
    with pytest.raises(CohortError, match=r":2: the label table has no slide 'a'"):
        read_splits(cases, _file(tmp_path, "slide,split\na,train\nt,test\n"))


def test_a_patient_stands_for_all_cases(tmp_path: Path) -> None:
    table = _file(tmp_path, "case,patient,slide\n1,A,a\n2,A,b\n3,B,c\n", "labels.csv")
    cases = read_cohort(table)
    for text in ("patient,split\nA,train\nB,test\n", "train,test\nA,B\n", "case,split\nA,train\nB,test\n"):
        assert _parts(read_splits(cases, _file(tmp_path, text))) == {"1": "train", "2": "train", "3": "test"}
    with pytest.raises(
        CohortError, match=r"splits_0.csv: group A is in two splits: case 1 in train, case 2 in test"
    ):
        read_splits(cases, _file(tmp_path, "slide,split\na,train\nb,test\n"))


@pytest.mark.parametrize(
    ("own", "listed"), [("7", "7.0"), ("7.0", "7"), ("007", "007"), ("7", "7"), ("7.0", "7.0")]
)
def test_numbers_as_pandas_writes_them(tmp_path: Path, own: str, listed: str) -> None:
    """Columns of unequal length make floats of numbers."""
    cases = [Case(own, (f"{own}",)), Case("8", ("8",))]
    file = _file(tmp_path, f",train,val\n0,8,{listed}\n1,,\n")
    assert _parts(read_splits(cases, file)) == {own: "val", "8": "train"}


def test_zeros_that_a_spreadsheet_dropped_are_suggested(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"no case or slide '7' \(is it '007'\?\)"):
        read_splits([Case("007", ("007",)), Case("8", ("8",))], _file(tmp_path, "case,split\n7,train\n"))


def test_words_for_missing_list_nothing(tmp_path: Path) -> None:
    cases = _single(["x"] * 3)
    file = _file(tmp_path, ",train,val,test\n0,00,01,02\n1,NaN,#N/A,\n")
    assert _parts(read_splits(cases, file)) == {"00": "train", "01": "val", "02": "test"}


def test_a_case_and_a_slide_must_agree(tmp_path: Path) -> None:
    cases = [Case("a", ("s",)), Case("b", ("t",))]
    good = _file(tmp_path, "case,slide,split\na,s,train\nb,t.svs,test\n", "good.csv")
    assert _parts(read_splits(cases, good)) == {"a": "train", "b": "test"}
    with pytest.raises(CohortError, match=":2: 'a' may be one case, or a slide or patient of another"):
        read_splits(cases, _file(tmp_path, "case,slide,split\na,t,train\nb,s,test\n"))
    other = [Case("s", ("s",)), Case("t", ("t",))]  # no cases in the label table
    assert _parts(read_splits(other, good)) == {"s": "train", "t": "test"}


def test_cases_without_a_split_are_left_out_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = _file(tmp_path, "slide,split\ns0,train\n")
    assert _parts(read_splits(_single(["x", "x"]), file)) == {"00": "train"}
    assert "1 cases have no split and are left out: 01" in caplog.text


def test_authors_folds_are_disjoint_and_cover_the_cohort(shared: Path) -> None:
    folder = shared / "data/labels/authors/survival_tcga_brca_3fold"
    cases = read_cohort(folder / "fold_0.csv")
    tested: list[str] = []
    for fold in range(3):
        found = read_splits(cases, folder, fold=fold)
        assert _parts(found) == _parts(read_cohort(folder / f"fold_{fold}.csv"))
        tested += [case.id for case in found if case.split == "test"]
    assert sorted(tested) == sorted(case.id for case in cases)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,split\n00,train\n00,test\n", r":2 and :3: case 00 is in two splits \('train' and 'test'\)"),
        (",train,val,test\n0,00,01,00\n", r":2 and :2: case 00 is in two splits"),
        (",train,val,test\n0,00,01,\n1,s1,,\n", r":2 and :3: case 01 is in two splits"),
        ("slide,split\n,train\n", ":2: a split without a case or slide"),
        ("case,split\n0O1,train\n", r":2: the label table has no case or slide '0O1' \(is it '01'\?\)"),
        ("case,split\n00,trian\n", r":2: split 'trian' \(is it 'train'\?\) is not one of train, val, test"),
        ("case,split\n00,\n", r":2: split '' is not one of"),
        ("case,label\n00,1\n", "neither a column split nor the columns train, val and test"),
        (",train,val,test\ns0,True,False,False\n", "no case or slide 'True'"),
        ("", "is empty"),
    ],
)
def test_broken_files_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CohortError, match=message) as refusal:
        read_splits(_single(["x", "y"]), _file(tmp_path, text))
    assert "splits_0.csv" in str(refusal.value)


def test_a_folder_needs_a_fold_and_a_file_none(tmp_path: Path) -> None:
    cases = _single(["x", "y"])
    file = _file(tmp_path, "case,split\n00,train\n")
    with pytest.raises(CohortError, match="is a folder of splits; say which fold"):
        read_splits(cases, tmp_path)
    with pytest.raises(CohortError, match=r"has no splits_3.csv or fold_3.csv, only \['splits_0.csv'\]"):
        read_splits(cases, tmp_path, fold=3)
    with pytest.raises(CohortError, match="is one file of splits, so fold 1 has no meaning"):
        read_splits(cases, file, fold=1)
    with pytest.raises(CohortError, match="no such label table"):
        read_splits(cases, tmp_path / "absent.csv")


# Leaks -----------------------------------------------------------------------------------------------------------


def test_splits_must_be_known_and_not_empty() -> None:
    cases = [Case("a", ("a",), split="train"), Case("b", ("b",), split="test")]
    with pytest.raises(CohortError, match="the val split has no case"):
        check_splits(cases, needed=("train", "val"))
    check_splits(cases, needed=("test",))
    for wrong, message in (
        ("vall", r"'vall' \(is it 'val'\?\)"),
        ("dev", "'dev' is not"),
        ("", "'' is not"),
    ):
        with pytest.raises(CohortError, match=f"case a: split {message}"):
            check_splits([Case("a", ("a",), split=wrong)], needed=())


def test_a_planted_leak_is_found(tmp_path: Path) -> None:
    twice = [Case("a", ("a",), split="train"), Case("a", ("b",), split="test")]
    with pytest.raises(CohortError, match="group a is in two splits: case a in train, case a in test"):
        check_splits(twice, needed=())
    table = _file(
        tmp_path, "slide,split\nTCGA-3C-AALI-01Z-00-DX1,train\nTCGA-3C-AALI-01Z-00-DX2,test\n", "labels.csv"
    )
    with pytest.raises(CohortError, match="group TCGA-3C-AALI is in two splits"):
        check_splits(read_cohort(table), needed=())
    table.write_text("slide,group,split\na,x,train\nb,x,val\n")
    with pytest.raises(CohortError, match="group x is in two splits: case a in train, case b in val"):
        check_splits(read_cohort(table), needed=())
    check_splits(read_cohort(table, columns={"group": "slide"}), needed=())
