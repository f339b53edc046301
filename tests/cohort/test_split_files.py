from pathlib import Path

import pytest

from e2e_abmilx.cohort.cases import read_cohort
from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import CohortError
from e2e_abmilx.cohort.split_files import read_splits, write_splits
from e2e_abmilx.cohort.splits import assign_folds


def _file(folder: Path, text: str, name: str = "splits_0.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def _single(labels: list[str], split: str = "") -> list[Case]:
    return [Case(f"{k:02}", (f"s{k}",), label, split=split) for k, label in enumerate(labels)]


def _parts(cases: list[Case]) -> dict[str, str]:
    return {case.id: case.split for case in cases}


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
    assert _parts(read_splits(cases, tmp_path, fold=1)) == {"007": "train", "8": "val", "9": "train", "10": "val"}


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
def test_other_spellings_of_split_columns(tmp_path: Path, header: str) -> None:
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
def test_names_are_looked_up_by_their_column(tmp_path: Path, column: str, numbers: dict[str, str]) -> None:
    """Case 1 has slide 2, and case 2 has slide 1."""
    cases = [Case("1", ("2",)), Case("2", ("1",))]
    file = _file(tmp_path, f"{column},split\n1,train\n2,test\n")
    assert _parts(read_splits(cases, file)) == numbers


@pytest.mark.parametrize("text", ["train,test\n1,2\n", "id,split\n1,train\n2,test\n"])
def test_names_that_may_be_cases_or_slides_are_refused(tmp_path: Path, text: str) -> None:
    cases = [Case("1", ("2",)), Case("2", ("1",))]
    with pytest.raises(CohortError, match=r"'1' may be one case, or a slide or patient of another; list the names"):
        read_splits(cases, _file(tmp_path, text))
    cases = [Case("1", ("2",)), Case("2", ("3",))]  # no slide is called 1, so the names are cases
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
    with pytest.raises(CohortError, match=r"splits_0.csv: group A is in two splits: case 1 in train, case 2 in test"):
        read_splits(cases, _file(tmp_path, "slide,split\na,train\nb,test\n"))


@pytest.mark.parametrize(("own", "listed"), [("7", "7.0"), ("7.0", "7"), ("007", "007"), ("7", "7"), ("7.0", "7.0")])
def test_numbers_as_pandas_writes_them(tmp_path: Path, own: str, listed: str) -> None:
    """pandas turns integers into floats in columns of unequal length."""
    cases = [Case(own, (f"{own}",)), Case("8", ("8",))]
    file = _file(tmp_path, f",train,val\n0,8,{listed}\n1,,\n")
    assert _parts(read_splits(cases, file)) == {own: "val", "8": "train"}


def test_leading_zeros_that_a_spreadsheet_dropped_are_suggested(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"no case or slide '7' \(is it '007'\?\)"):
        read_splits([Case("007", ("007",)), Case("8", ("8",))], _file(tmp_path, "case,split\n7,train\n"))


def test_words_for_missing_values_are_ignored(tmp_path: Path) -> None:
    cases = _single(["x"] * 3)
    file = _file(tmp_path, ",train,val,test\n0,00,01,02\n1,NaN,#N/A,\n")
    assert _parts(read_splits(cases, file)) == {"00": "train", "01": "val", "02": "test"}


def test_a_case_and_a_slide_must_agree(tmp_path: Path) -> None:
    cases = [Case("a", ("s",)), Case("b", ("t",))]
    good = _file(tmp_path, "case,slide,split\na,s,train\nb,t.svs,test\n", "good.csv")
    assert _parts(read_splits(cases, good)) == {"a": "train", "b": "test"}
    with pytest.raises(CohortError, match=":2: 'a' may be one case, or a slide or patient of another"):
        read_splits(cases, _file(tmp_path, "case,slide,split\na,t,train\nb,s,test\n"))
    other = [Case("s", ("s",)), Case("t", ("t",))]  # the label table has no cases of these names
    assert _parts(read_splits(other, good)) == {"s": "train", "t": "test"}


def test_cases_without_a_split_are_left_out_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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
