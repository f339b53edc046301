from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.cohort.label_tables import (
    COLUMNS,
    TCGA_PATIENT,
    TCGA_SLIDE,
    CohortError,
    open_table,
    recognise,
    rows_of,
    slide_name,
    suggest,
)

TABLE = Path("labels.csv")


def _recognised(header: str, **stated: str) -> dict[str, str]:
    names = header.split(",")
    return {name: names[index] for name, index in recognise(names, TABLE, stated).items()}


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        # the authors' tables
        ("case,slide,label,fold", {"case": "case", "slide": "slide", "label": "label", "split": "fold"}),
        ("Case,ID,Label,Split", {"case": "Case", "slide": "ID", "label": "Label", "split": "Split"}),
        ("ID,Label", {"slide": "ID", "label": "Label"}),
        (
            "Study,ID,Event,Status,WSI,RNA,Label,Split",
            {
                "case": "ID", "slide": "WSI", "time": "Event", "event": "Status", "label": "Label",
                "split": "Split",
            },
        ),
        # CLAM
        ("case_id,slide_id,label", {"case": "case_id", "slide": "slide_id", "label": "label"}),
        # MCAT, SurvPath
        (
            ",case_id,slide_id,site,survival_months,censorship,train",
            {"case": "case_id", "slide": "slide_id", "time": "survival_months", "censorship": "censorship"},
        ),
        # STAMP
        ("PATIENT,FILENAME", {"case": "PATIENT", "slide": "FILENAME"}),
        ("PATIENT,OS,OS.time", {"case": "PATIENT", "event": "OS", "days": "OS.time"}),
        # slideflow, PathBench, eva, PANDA at Kaggle
        ("patient,slide,category", {"case": "patient", "slide": "slide", "label": "category"}),
        (
            "slide,patient,dataset,time,event",
            {"slide": "slide", "case": "patient", "time": "time", "event": "event"},
        ),
        ("origin,embeddings,target,split,wsi_id", {"slide": "wsi_id", "label": "target", "split": "split"}),
        ("image_id,data_provider,isup_grade", {"slide": "image_id"}),
        # days; months take precedence over days; survival needs a time and its event
        ("slide,survival_days,event", {"slide": "slide", "days": "survival_days", "event": "event"}),
        ("slide,days,time,event", {"slide": "slide", "time": "time", "event": "event"}),
        ("slide,status,label", {"slide": "slide", "label": "label"}),
        ("slide,time,label", {"slide": "slide", "label": "label"}),
        ("slide,event,status,label", {"slide": "slide", "label": "label"}),
    ],
)  # fmt: skip
def test_headers_are_recognised(header: str, columns: dict[str, str]) -> None:
    assert _recognised(header) == columns


def test_stated_columns_take_precedence() -> None:
    header = "slide,case,label,grade,time,event,pfs,pfs_censored"
    assert _recognised(header, label="grade")["label"] == "grade"
    stated = _recognised(header, time="pfs", censorship="pfs_censored")
    assert (stated["time"], stated["censorship"]) == ("pfs", "pfs_censored")
    assert not {"event", "days"} & stated.keys()
    assert _recognised(header, group="case")["case"] == "case"
    assert "slide" not in _recognised("slide,label", case="slide")


@given(st.permutations([name for names in COLUMNS.values() for name in names]))
def test_the_order_of_columns_does_not_matter(header: list[str]) -> None:
    distinct = list(dict.fromkeys(header))
    ordered = sorted(distinct)
    assert {name: distinct[index] for name, index in recognise(distinct, TABLE, {}).items()} == {
        name: ordered[index] for name, index in recognise(ordered, TABLE, {}).items()
    }


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_quotes_and_blank_lines(tmp_path: Path, separator: str) -> None:
    table = tmp_path / "labels.csv"
    rows = [["slide", "label", "split"], ["NA", "NaN", "n/a"], [], ["007", ' "x" ', "train"]]
    text = "\r\n".join(separator.join(row) for row in rows)
    table.write_text(text, encoding="utf-8-sig")
    with open_table(table) as (header, lines):
        found = list(rows_of(lines, recognise(header, table, {}), table))
    assert header == ["slide", "label", "split"]
    assert [row.where for row in found] == [f"{table}:2", f"{table}:4"]
    assert found[0].cells == {"slide": "NA", "label": "", "split": ""}
    assert found[1].cells == {"slide": "007", "label": '"x"', "split": "train"}


def test_tables_are_read_row_by_row(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("slide,label\na,1\nb,2,3\n")
    with open_table(table) as (_, lines):
        assert next(lines) == (2, ["a", "1"])
        with pytest.raises(CohortError, match=r":3: the row has 3 cells, the header 2"):
            next(lines)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a", "a"),
        (" 007.SVS ", "007"),
        ("dir/a.h5", "a"),
        (r"dir\a.tiff", "a"),
        ("a.b.c", "a.b.c"),
        ("a.pt.zarr", "a.pt"),
        (
            "TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF-D8FB-45CF-B4BD-C6B76294C291",
            "TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF-D8FB-45CF-B4BD-C6B76294C291",
        ),
    ],
)
def test_slide_names(text: str, name: str) -> None:
    assert slide_name(text) == name


def test_barcodes() -> None:
    uuid = "F6E9A5DF-D8FB-45CF-B4BD-C6B76294C291"
    for name in ("TCGA-3C-AALI-01Z-00-DX1", "TCGA-3C-AALI-01A-02-BSB", "TCGA-3C-AALI-11A-01-TS1"):
        for text in (name, f"{name}.{uuid}"):
            found = TCGA_SLIDE.fullmatch(text)
            assert found
            assert (found["slide"], found["patient"]) == (name, "TCGA-3C-AALI")
    for text in ("TCGA-3C-AALI", "TCGA-3C-AALI-01Z-00-DX1.uuid", "xTCGA-3C-AALI-01Z-00-DX1"):
        assert not TCGA_SLIDE.fullmatch(text)
    assert TCGA_PATIENT.match("TCGA-3C-AALI-01Z")
    assert not TCGA_PATIENT.match("TCGA-3C-AALIX")


def test_similar_names_are_suggested() -> None:
    assert suggest("slide_01", ["slide-01", "other"]) == " (is it 'slide-01'?)"
    assert suggest("x", ["slide-01"]) == ""
