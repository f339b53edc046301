import pytest

from e2e_abmilx.cohort.entries import PATIENT_PREFIX, parse_row
from e2e_abmilx.cohort.label_tables import CohortError, Row


def _row(**cells: str) -> Row:
    return Row("labels.csv:2", cells)


def test_a_row_becomes_an_entry() -> None:
    row = Row(
        "labels.csv:2",
        {
            "case": "c", "slide": "a.svs; dir/b.h5 ;a.svs", "patient": "P", "label": "x", "group": "g", "split": "Training",
            "fold": "fold_02", f"{PATIENT_PREFIX}donor": "D", "label_ER": "1.0", "label_PR": "",
        },
    )  # fmt: skip
    entry = parse_row(row, "PATIENT")
    assert entry.case._replace(time=0, value=0) == ("c", ("a", "b"), "x", 0, 0, "train", "g", (1, -1), 0)
    assert (entry.where, entry.patient, entry.fold) == ("labels.csv:2", "P", "2")
    assert entry.patients == {"PATIENT": "P", "donor": "D"}
    assert entry.folders == (("b", "dir"),)


def test_a_slide_stands_for_its_case_and_a_case_for_its_slide() -> None:
    assert parse_row(_row(slide="a.svs"), "").case.id == "a"
    assert parse_row(_row(slide="a.svs;b.svs"), "").case.id == "a;b"
    assert parse_row(_row(case="c"), "").case.slides == ("c",)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"slide": " ; "}, "labels.csv:2: the slide or case is empty; every row must name both"),
        ({"slide": "a", "case": ""}, "the slide or case is empty"),
        ({"slide": "a", "patient": "NA"}, r"the patient is empty \('NA' means missing\)"),
        ({"slide": "a", "group": ""}, r"the group is empty; .* columns: \{group: null\}"),
        ({"slide": "Total"}, "slide 'Total' sums up the rows above"),
        ({"slide": "a", "label_ER": "2"}, "ER '2' is neither 1"),
    ],
)
def test_broken_rows_are_refused(cells: dict[str, str], message: str) -> None:
    with pytest.raises(CohortError, match=message):
        parse_row(_row(**cells), "")
