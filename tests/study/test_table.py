"""What a label table holds, and which tables are refused."""

from pathlib import Path

import pytest

from e2e_abmilx.cohort import CohortError
from e2e_abmilx.study.table import Table, read_table


def _read(path: Path, **stated: object) -> Table:
    return read_table(path, **{"columns": {}, "target": None, "classes": (), **stated})  # type: ignore[arg-type]


def _write(folder: Path, header: str, *rows: str) -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_the_authors_tables(shared: Path) -> None:
    folder = shared / "data/labels/authors"
    panda = _read(folder / "panda.csv")
    assert (panda.target, panda.classes, len(panda.cases)) == ("label", tuple("012345"), 10202)
    assert any("ordered grades" in doubt and "val/qwk" in doubt for doubt in panda.doubts)
    brca = _read(folder / "subtyping_tcga_brca_resample.csv")
    assert (brca.classes, brca.rows, brca.repeated, len(brca.cases)) == (("IDC", "ILC"), 1123, 138, 985)
    survival = folder / "survival_tcga_brca_3fold/fold_0.csv"
    with pytest.raises(CohortError, match=r"'Label' and survival times in column 'Event'.*--target survival"):
        _read(survival)
    assert _read(survival, target="survival").titles["time"] == "Event"


def test_a_table_of_survpath(shared: Path) -> None:
    table = _read(shared / "data/labels/survpath/tcga_hnsc.csv")
    assert (table.target, table.titles["time"], table.titles["censorship"]) == (
        "survival",
        "survival_months",
        "censorship",
    )
    assert sum(len(case.slides) > 1 for case in table.cases) == 16
    assert any("'site'" in doubt and "--columns '{group: site}'" in doubt for doubt in table.doubts)


def test_the_only_column_that_can_be_the_target_is_asked_about(tmp_path: Path) -> None:
    rows = [f"s{number},{('ductal', 'lobular')[number % 2]},hospital {number % 4}" for number in range(12)]
    table = _read(_write(tmp_path, "slide,diagnosis,center", *rows))
    assert (table.target, table.columns, table.classes) == ("label", {"label": "diagnosis"}, ("ductal", "lobular"))
    assert table.unread == ["center"]
    firsts = [" ".join(doubt.split()[:3]) for doubt in table.doubts]
    assert firsts == ["Is column 'diagnosis'", "Does a patient", "Should cases with"]


def test_several_columns_that_can_be_the_target_are_refused(tmp_path: Path) -> None:
    path = _write(
        tmp_path, "slide,ER,PR,age", *(f"s{number},{number % 2},{number // 5},{30.5 + number}" for number in range(9))
    )
    with pytest.raises(
        CohortError, match=r"3 of its columns may be the target: 'ER' \(0, 1\), 'PR' .*'age' \(numbers\)"
    ):
        _read(path)
    several = _read(path, classes=("ER", "PR"))
    assert (several.target, several.classes, several.cases[5].labels) == ("multi_label", ("ER", "PR"), (1, 1))
    regression = _read(path, target="regression")
    assert (regression.columns, regression.cases[2].value) == ({"label": "age"}, 32.5)


@pytest.mark.parametrize(
    ("values", "target"),
    [
        (["0.25", "1.5", "3.75", "2.0"], "regression"),
        ([str(number) for number in range(11)], "regression"),
        ([str(number) for number in range(10)], "label"),
        (["low", "high"], "label"),
        (["1", "1.0", "2.5"], "regression"),  # as labels, 1 and 1.0 would be refused as two spellings
    ],
)
def test_numbers_are_a_regression_and_grades_are_classes(tmp_path: Path, values: list[str], target: str) -> None:
    path = _write(tmp_path, "slide,label", *(f"s{number},{values[number % len(values)]}" for number in range(44)))
    table = _read(path)
    assert table.target == target
    whole = all(value.isdigit() for value in values)
    assert any("--target label" in doubt for doubt in table.doubts) == (target == "regression" and whole)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("slide,label", "s{n},text {n}", "12 different values in 12 rows, such as 'text 0'"),
        ("slide,note", "s{n},text {n}", "no column of labels"),
        ("slide,label", "s{n},{e}", "6 of 12 cases have no label"),
        ("slide,time,event,label", "s{n},{n},1,{b}", "survival times in column 'time'"),
    ],
)
def test_what_only_a_guess_could_tell_is_refused(tmp_path: Path, header: str, row: str, message: str) -> None:
    rows = [row.format(n=n, e="AB"[n % 4 == 1] if n % 2 else "", b=n % 2) for n in range(12)]
    with pytest.raises(CohortError, match=message):
        _read(_write(tmp_path, header, *rows))


def test_a_stated_target_needs_its_columns(tmp_path: Path) -> None:
    path = _write(tmp_path, "slide,label", "a,0", "b,1", "c,0", "d,1")
    with pytest.raises(CohortError, match=r"--columns '\{time: NAME, event: NAME\}'"):
        _read(path, target="survival")
    with pytest.raises(CohortError, match=r"--classes ER PR"):
        _read(path, target="multi_label")
    with pytest.raises(CohortError, match=r"label '1' .*is not one of the classes"):
        _read(path, classes=("0", "2"))
