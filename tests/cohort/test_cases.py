import logging
from collections import Counter
from pathlib import Path

import pytest

from e2e_abmilx.cohort.cases import read_cohort
from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import CohortError
from e2e_abmilx.cohort.survival import DAYS_PER_MONTH


def _table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# Valid tables ------------------------------------------------------------------------------------------------


def test_rows_become_cases(tmp_path: Path) -> None:
    table = _table(tmp_path, "case,slide,label,split\n007,a.svs,1,train\n8,c.v2,0,test\n007,b.svs,1,train\n")
    first, second = read_cohort(table)
    assert first == Case("007", ("a", "b"), "1", first.time, 0, "train", "007")  # ids are text and keep their zeros
    assert second.slides == ("c.v2",)  # only known endings are removed


def test_columns_are_recognised_or_stated(tmp_path: Path) -> None:
    (case,) = read_cohort(_table(tmp_path, "Patient_ID,image,Target,Survival_Months,event\np,s,x,3.5,1\n"))
    assert (case.id, case.slides, case.label, case.time, case.event) == ("p", ("s",), "x", 3.5, 1)
    (case,) = read_cohort(
        _table(tmp_path, "image,tma,label,grade\ns,t,0,2\n"), columns={"label": "grade", "group": "tma"}
    )
    assert (case.label, case.group) == ("2", "t")


def test_censorship_is_the_opposite_of_event(tmp_path: Path) -> None:
    table = _table(tmp_path, "slide,survival_months,censorship\na,3,0\nb,4,1.0\nc,NA,\n")
    assert [(case.time, case.event) for case in read_cohort(table)][:2] == [(3.0, 1), (4.0, 0)]
    assert str(read_cohort(table)[2].time) == "nan"


def test_days_become_months(tmp_path: Path) -> None:
    table = _table(tmp_path, "slide,survival_days,OS\na,3044,1\n")
    (case,) = read_cohort(table)
    assert case.time == pytest.approx(100)
    table = _table(tmp_path, "slide,OS.time,OS\na,9999,1\nb,30,0\n")
    assert read_cohort(table)[0].time == 9999 / DAYS_PER_MONTH


def test_several_slides_in_a_cell(tmp_path: Path) -> None:
    table = _table(tmp_path, "Study,ID,Event,Status,WSI,RNA,Label,Split\nB,p,3,1,a.x.pt;b.pt,p.csv,0,Train\n")
    assert read_cohort(table) == [Case("p", ("a.x", "b"), "0", 3.0, 1, "train", "p")]


def test_slides_of_one_tcga_patient_form_one_group(tmp_path: Path) -> None:
    table = _table(tmp_path, "slide,label\nTCGA-3C-AALI-01Z-00-DX1,0\nTCGA-3C-AALI-11A-01-TS1,1\nx,0\n")
    cases = read_cohort(table)
    assert len(cases) == 3
    assert [case.group for case in cases] == ["TCGA-3C-AALI", "TCGA-3C-AALI", "x"]


def test_a_slide_table_lists_the_slides_of_cases(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = _table(tmp_path, "PATIENT,label\n01,x\n02,y\n03,x\n", "clini.csv")
    slides = _table(tmp_path, "PATIENT,FILENAME\n01,a.h5\n02,b.h5\n01,sub/c.h5\n04,d.h5\n", "slides.csv")
    cases = read_cohort(table, slide_table=slides)
    assert [(case.id, case.slides) for case in cases] == [("01", ("a", "c")), ("02", ("b",))]
    assert f"1 cases are not in {slides}: 03" in caplog.text
    assert f"1 cases are not in {table}: 04" in caplog.text
    # without a slide table, slides have the name of the case
    assert read_cohort(table)[0].slides == ("01",)


def test_multi_labels(tmp_path: Path) -> None:
    table = _table(tmp_path, "case,slide,HER2,label,ER\nc,a,1,x,0.0\nd,b,NA,y,1\nc,e,1.0,x,0\n")
    first, second = read_cohort(table, label_columns=["ER", "HER2"])
    assert (first.labels, first.slides, first.label) == ((0, 1), ("a", "e"), "x")
    assert second.labels == (1, -1)
    assert read_cohort(table)[0].labels == ()


MULTI_LABEL_BROKEN = {
    "a word": ("slide,ER,PR\na,1,0\nb,1,pos\n", r":3: PR 'pos' is neither 1 \(the case has it\) nor 0"),
    "a grade": ("slide,ER,PR\na,2,0\n", r":2: ER '2' is neither .* or nothing where it is unknown"),
    "a fraction": ("slide,ER,PR\na,1,0.5\n", ":2: PR '0.5' is neither"),
    "a sign": ("slide,ER,PR\na,-1,0\n", ":2: ER '-1' is neither"),
    "no column": ("slide,ER,PGR\na,1,0\n", r"no column 'PR' \(is it 'PGR'\?\), which is stated for a class; it has"),
    "other capitals": ("slide,ER,pr\na,1,0\n", "no column 'PR'"),
    "two columns": ("slide,ER,PR,PR\na,1,0,1\n", "2 column 'PR'"),
    "two rows": ("case,slide,ER,PR\nc,a,1,0\nc,b,1,1\n", r":2 and :3: case c has two sets of labels \(\(1, 0\) and"),
    "half a row": ("case,slide,ER,PR\nc,a,1,0\nc,b,1,\n", r"case c has two sets of labels \(\(1, 0\) and \(1, -1\)\)"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), MULTI_LABEL_BROKEN.values(), ids=MULTI_LABEL_BROKEN.keys())
def test_broken_multi_labels(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CohortError, match=message) as refusal:
        read_cohort(_table(tmp_path, text), label_columns=["ER", "PR"])
    assert "labels.csv" in str(refusal.value)


def test_recognised_columns_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = _table(tmp_path, "ID,days,censorship\na,3,0\nb,4,1\nb,4,1\n")
    with caplog.at_level(logging.INFO):
        read_cohort(table)
    (line,) = caplog.messages
    assert line == (
        f"{table}: 2 cases with 2 slides; slide from 'ID', days from 'days' (days, divided by 30.44),"
        " censorship from 'censorship' (1 = censored), every slide is a case, 1 repeated rows left out"
    )


# Real tables -----------------------------------------------------------------------------------------------------


def test_authors_panda(shared: Path) -> None:
    cases = read_cohort(shared / "data/labels/authors/panda.csv")
    assert Counter(case.split for case in cases) == {"train": 7143, "val": 1019, "test": 2040}
    counts = Counter(case.label for case in cases)
    assert [counts[grade] for grade in "012345"] == [2724, 2602, 1321, 1205, 1187, 1163]
    assert all(len(case.slides) == 1 for case in cases)


def test_authors_subtyping_and_its_oversampled_copy(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = shared / "data/labels/authors"
    cases = read_cohort(folder / "subtyping_tcga_brca.csv")
    assert Counter(case.label for case in cases) == {"IDC": 787, "ILC": 198}
    assert Counter(case.split for case in cases) == {"train": 656, "val": 95, "test": 234}
    with caplog.at_level(logging.INFO):
        copy = read_cohort(folder / "subtyping_tcga_brca_resample.csv")
    assert "985 cases with 985 slides" in caplog.text
    assert "138 repeated rows left out" in caplog.text
    assert sorted(map(repr, copy)) == sorted(map(repr, cases))


@pytest.mark.parametrize(("fold", "train"), [(0, 671), (1, 671), (2, 672)])
def test_authors_survival(shared: Path, fold: int, train: int) -> None:
    cases = read_cohort(shared / f"data/labels/authors/survival_tcga_brca_3fold/fold_{fold}.csv")
    assert len(cases) == 1007
    assert sum(case.event for case in cases) == 146
    assert sum(case.split == "train" for case in cases) == train
    assert sum(len(case.slides) > 1 for case in cases) == 61
    assert (min(case.time for case in cases), max(case.time for case in cases)) == (1.0, 286.8333333)
    assert Counter(case.label for case in cases) == {"0": 432, "1": 223, "2": 193, "3": 159}


def test_survpath(shared: Path) -> None:
    cases = read_cohort(shared / "data/labels/survpath/tcga_hnsc.csv")
    assert len(cases) == 394
    assert sum(len(case.slides) for case in cases) == 414
    second = next(case for case in cases if case.id == "TCGA-BA-4074")
    assert (second.time, second.event) == (15.4, 1)  # censorship 0
    assert sum(case.event for case in cases) == 176
    assert all(slide.startswith(case.id + "-") for case in cases for slide in case.slides)
    other = read_cohort(
        shared / "data/labels/survpath/tcga_hnsc.csv",
        columns={"time": "survival_months_pfi", "censorship": "censorship_pfi", "group": "site"},
    )
    assert next(case for case in other if case.id == "TCGA-BA-4074").time == 13.2
    assert {case.group for case in other} >= {"BA", "4P", "WA"}


# Tables that are refused -------------------------------------------------------------------------------------------

BROKEN = {
    "nothing": ("", "labels.csv is empty"),
    "blank lines": ("\n\n", "labels.csv is empty"),
    "header only": ("slide,label\n", "has no rows"),
    "no slides": ("name,label\na,1\n", r"no column of slide names .*only \['name', 'label'\]"),
    "no header": ("a,b,1,train\nc,d,0,test\n", "looks like a row"),
    "two spellings": ("slide,label,Label\na,1,2\n", "2 columns named 'label'"),
    "same column twice": ("slide,label,label\na,1,2\n", "2 columns named 'label'"),
    "too many cells": ("slide,label\na,1\nb,1,train\n", ":3: the row has 3 cells, the header 2"),
    "too few cells": ("slide,label,split\na,1\n", ":2: the row has 2 cells, the header 3"),
    "open quote": ('slide,label\n"a,1\n', "cannot be read as a CSV"),
    "text after quote": ('slide,label\n"a"b,1\n', "cannot be read as a CSV"),
    "empty slide": ("slide,label\n,1\n", ":2: the slide or case is empty"),
    "only separators": ("case,slide\nc,;\n", ":2: the slide or case is empty"),
    "no name in a path": ("slide,label\n./,1\n", ":2: the slide or case is empty"),
    "empty case": ("case,slide,label\n  ,a,1\n", ":2: the slide or case is empty"),
    "two splits": ("case,slide,split\nc,a,train\nc,b,test\n", r":2 and :3: case c is in two splits"),
    "two splits, far": ("slide,split\na,train\n\nb,val\na,val\n", r":2 and :5: case a is in two splits"),
    "half a split": ("case,slide,split\nc,a,train\nc,b,\n", r"case c is in two splits \('train' and ''\)"),
    "two labels": ("case,slide,label\nc,a,1\nc,b,0\n", r"case c has two labels \('1' and '0'\)"),
    "two times": ("case,slide,time,event\nc,a,1,1\nc,b,2,1\n", r"case c has two times \(1.0 and 2.0\)"),
    "half a time": ("case,slide,time,event\nc,a,1,0\nc,b,,\n", r"case c has two times \(1.0 and nan\)"),
    "two events": ("case,slide,time,event\nc,a,1,1\nc,b,1,0\n", r"case c has two events \(1 and 0\)"),
    "two groups": ("case,slide,group\nc,a,x\nc,b,y\n", r"case c is in two groups \('x' and 'y'\)"),
    "shared slide": ("case,slide\nc,a.svs\nd,a.h5\n", ":3: slide a belongs to case c and to case d"),
    "negative": ("slide,time,event\na,-3,1\n", ":2: time '-3' is negative"),
    "infinite": ("slide,time,event\na,inf,1\n", ":2: time 'inf' is negative or not finite"),
    "a word": ("slide,time,event\na,soon,1\n", "time 'soon' is not a number of months; correct it"),
    "decimal comma": ("slide;time;event\na;3,5;1\n", "time '3,5' is not a number .* write a decimal point"),
    "a word for days": ("slide,days,event\na,soon,1\n", "time 'soon' is not a number of days"),
    "days as months": ("slide,time,event\na,3650,1\n", "304 years if it counts months"),
    "endless days": ("slide,days,event\na,99999,1\n", "274 years if it counts days"),
    "no time": ("slide,time,event\na,,1\n", ":2: the time is empty and the event is not"),
    "no event": ("slide,time,event\na,3,\n", ":2: the event is empty and the time is not"),
    "a word for an event": ("slide,time,event\na,3,dead\n", "event 'dead' is neither 1 .happened. nor 0"),
    "event 2": ("slide,time,event\na,3,2\n", "event '2' is neither"),
    "censored yes": ("slide,time,censorship\na,3,yes\n", r"censorship 'yes' is neither 1 \(censored\)"),
    "signs": ("slide,time,event,censorship\na,3,1,1\n", "event 1 and censorship 1 contradict"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_tables_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CohortError, match=message) as refusal:
        read_cohort(_table(tmp_path, text))
    assert "labels.csv" in str(refusal.value)


@pytest.mark.parametrize("content", [b"PK\x03\x04\xff", b"slide\n\x81\x8d", b"slide\0label", b"\xff\xfea"])
def test_files_that_are_not_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(CohortError, match=r"labels\.csv cannot be read as a CSV in UTF-8"):
        read_cohort(tmp_path / "labels.csv")


def test_files_that_are_not_tables(tmp_path: Path) -> None:
    _table(tmp_path, "slide\na\n", "label.csv")
    with pytest.raises(CohortError, match=r"no such label table \(is it 'label.csv'\?\)"):
        read_cohort(tmp_path / "labels.csv")
    with pytest.raises(CohortError, match="is a folder"):
        read_cohort(tmp_path)
    with pytest.raises(CohortError, match=r"labels\.xlsx is a spreadsheet; save it as a CSV"):
        read_cohort(_table(tmp_path, "PK", "labels.xlsx"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": "grades"}, r"no column 'grades' \(is it 'grade'\?\), which is stated for label"),
        ({"labels": "grade"}, r"'labels' \(is it 'label'\?\) is not one of"),
        ({"time": "months"}, r"time is stated, but no column of its event is"),
        ({"event": "grade"}, r"event is stated, but no column of its time is"),
    ],
)
def test_stated_columns_must_exist(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    with pytest.raises(CohortError, match=message):
        read_cohort(_table(tmp_path, "slide,grade,months\na,1,2\n"), columns=columns)


def test_slide_tables_must_fit(tmp_path: Path) -> None:
    table = _table(tmp_path, "PATIENT,label\n1,x\n", "clini.csv")
    with pytest.raises(CohortError, match="must have a case column and a slide column"):
        read_cohort(table, slide_table=_table(tmp_path, "FILENAME\na\n", "slides.csv"))
    with pytest.raises(CohortError, match="no case in common"):
        read_cohort(table, slide_table=_table(tmp_path, "PATIENT,FILENAME\n01,a\n", "slides.csv"))
    with pytest.raises(CohortError, match="no case in common"):
        read_cohort(table, slide_table=_table(tmp_path, "PATIENT,FILENAME\n", "slides.csv"))
