from pathlib import Path

import pytest

from e2e_abmilx.cohort import Case, CohortError, read_cohort
from e2e_abmilx.cohort.group_columns import find_group_columns, read_group_columns, tissue_source_sites


def _table(folder: Path, *lines: str, encoding: str = "utf-8") -> Path:
    (folder / "labels.csv").write_bytes("\n".join(lines).encode(encoding))
    return folder / "labels.csv"


def test_one_row_per_case(tmp_path: Path) -> None:
    table = _table(tmp_path, "slide,label,site,scanner", "a,0,Bonn,X", "b.svs,1,Kyoto,Y", "dir/c.tif,1,Bonn,X")
    found = read_group_columns(table, ["scanner", "site"], {})
    assert list(found.columns) == ["scanner", "site"]
    assert found.to_dict("index") == {
        "a": {"scanner": "X", "site": "Bonn"},
        "b": {"scanner": "Y", "site": "Kyoto"},
        "c": {"scanner": "X", "site": "Bonn"},
    }


def test_values_of_several_slides_are_joined(tmp_path: Path) -> None:
    table = _table(
        tmp_path, "case,slide,scanner", "p,1,X", "q,2,Y", "p,3,Y", "p,4,X", "r,5,", "r,6,Z", "s,7,NA", "s,8,n/a"
    )
    found = read_group_columns(table, ["scanner"], {})["scanner"]
    assert found.to_dict() == {"p": "X + Y", "q": "Y", "r": "Z", "s": ""}


@pytest.mark.parametrize("missing", ["", "NA", "-", "[Not Available]", "#N/A"])
def test_missing_values_are_empty(tmp_path: Path, missing: str) -> None:
    table = _table(tmp_path, "slide,site", f"a,{missing}", "b,Bonn")
    assert read_group_columns(table, ["site"], {})["site"].to_dict() == {"a": "", "b": "Bonn"}


def test_a_column_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    table = _table(tmp_path, "slide,site,scanner", "a,Bonn,X")
    with pytest.raises(CohortError, match=r"has no column 'scaner' \(is it 'scanner'\?\), which is stated for a group"):
        read_group_columns(table, ["site", "scaner"], {})
    with pytest.raises(CohortError, match="no such label table"):
        read_group_columns(tmp_path / "none.csv", ["site"], {})


def test_renamed_columns(tmp_path: Path) -> None:
    table = _table(tmp_path, "Fall,Bild,Zentrum,Monate,event", "p,1,Bonn,3,1", "p,2,Köln,3,1", "q,3,Bonn,4,0")
    columns = {"case": "Fall", "slide": "Bild", "time": "Monate"}
    assert read_group_columns(table, ["Zentrum"], columns)["Zentrum"].to_dict() == {"p": "Bonn + Köln", "q": "Bonn"}
    with pytest.raises(CohortError, match="no column 'Falll'"):
        read_group_columns(table, ["Zentrum"], {**columns, "case": "Falll"})


def test_a_stated_time_needs_no_event_here(tmp_path: Path) -> None:
    """The table has been read as a cohort before, so that its survival columns are complete."""
    table = _table(tmp_path, "slide,mo,os_status,site", "a,3,1,Bonn", "b,4,0,Kyoto")
    columns = {"time": "mo"}
    assert [case.time for case in read_cohort(table, columns=columns, target="survival")] == [3, 4]
    assert list(read_group_columns(table, ["site"], columns)["site"]) == ["Bonn", "Kyoto"]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8-sig", "utf-16"])
def test_tables_of_spreadsheets(tmp_path: Path, encoding: str) -> None:
    table = _table(tmp_path, "slide;Größe;split", "a;groß;train", "b;klein;test", encoding=encoding)
    assert read_group_columns(table, ["Größe"], {})["Größe"].to_dict() == {"a": "groß", "b": "klein"}


def test_cases_are_named_as_the_cohort_names_them(tmp_path: Path) -> None:
    """With slides listed in one cell, a patient column in place of a case column, or spaces around names."""
    for lines in (
        ("case,slide,label,site", "p,a;b,0,Bonn", "q,c,1,Kyoto"),
        ("patient_id,slide,label,site", "p,a,0,Bonn", "p,b,0,Bonn", "q,c,1,Kyoto"),
        ("slide,label,site", "a;b,0,Bonn", "c.svs,1,Kyoto"),
        ("case,slide,label,site", " p ,a.svs,0,Bonn", "q ,c,1,Kyoto"),
    ):
        table = _table(tmp_path, *lines)
        assert list(read_group_columns(table, ["site"], {}).index) == [case.id for case in read_cohort(table)]


def test_a_known_column_may_be_a_group(tmp_path: Path) -> None:
    table = _table(tmp_path, "slide,label,split", "a,0,train", "b,1,test")
    found = read_group_columns(table, ["split", "label"], {})
    assert found.to_dict("list") == {"split": ["train", "test"], "label": ["0", "1"]}


def test_no_group_is_an_empty_table(tmp_path: Path) -> None:
    found = read_group_columns(_table(tmp_path, "slide,site", "a,Bonn"), [], {})
    assert list(found.columns) == []


def test_usual_names_are_found_and_biology_is_not(tmp_path: Path) -> None:
    header = "slide,Site,tumor_site,Scanner Model,batch_id,age,SITE_CODE,primary_site,stage,plate"
    table = _table(tmp_path, header, "a,Bonn,lung,X,1,60,7,colon,II,p")
    assert find_group_columns(table) == ["Site", "Scanner Model", "batch_id", "SITE_CODE", "plate"]


def test_tissue_source_sites_of_barcodes() -> None:
    cases = [
        Case("TCGA-3C-AALI", ("TCGA-3C-AALI-01Z-00-DX1",)),
        Case("case", ("TCGA.a2.A0T2.01Z-00-DX1.uuid",)),
        Case("both", ("TCGA-A2-A0T2-01Z", "TCGA-BH-A0T2-01Z")),
        Case("C3L-00001", ("C3L-00001-21",)),
        Case("other", ("slide",)),
    ]
    assert tissue_source_sites(cases) == {"TCGA-3C-AALI": "3C", "case": "A2", "both": "A2 + BH"}
