"""All cases of a patient are in one split, whatever the table calls patients."""

import logging
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.cohort import Case, CohortError, assign_folds, check_splits, group_by_site, hold_out_validation
from e2e_abmilx.cohort.cases import read_cohort
from e2e_abmilx.cohort.patients import Identity, group_patients


def _table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def _blocks(folder: Path, header: str, patients: int = 12, blocks: int = 3) -> Path:
    """Write a table of patients with several cases each; the second column names the patient."""
    rows = [
        f"P{patient:02}-B{block},P{patient:02},P{patient:02}-B{block}-S1,{patient % 2}"
        for patient in range(patients)
        for block in range(blocks)
    ]
    return _table(folder, "\n".join([f"{header},label", *rows]) + "\n")


def _in_two_splits(cases: list[Case]) -> int:
    """Count the patients, given by the first three letters, that are in two splits."""
    splits = defaultdict(set)
    for case in cases:
        splits[case.id[:3]].add(case.split)
    return sum(len(found) > 1 for found in splits.values())


@pytest.mark.parametrize(
    "header",
    [
        "case_id,patient_id,slide_id", "case,patient,slide", "case_id,PATIENT,slide_id", "case_id,subject_id,slide_id",
        "case_id,submitter_id,slide_id", "Case ID,Subject ID,Slide ID", "case,PatientID,image", "case,donor,wsi",
        "case_id,bcr_patient_barcode,filename", "case,_PATIENT,slide", "case,Participant Number,slide", "case,MRN,slide",
        "id,patient,slide", "case,case_id,slide",
    ],
)  # fmt: skip
def test_a_patient_column_groups_cases(tmp_path: Path, header: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        cases = read_cohort(_blocks(tmp_path, header))
    expected = 12 if header.startswith("id,") else 36  # next to a patient column, a column `id` numbers the rows
    assert len(cases) == expected
    assert len({case.group for case in cases}) == 12
    if expected == 36:
        assert f"cases that share {header.split(',')[1]!r} stay in one split (12 groups)" in caplog.text
    for fold in range(4):
        assert not _in_two_splits(assign_folds(cases, fold=fold, folds=4, seed=fold))
    assert not _in_two_splits(hold_out_validation([c._replace(split="train") for c in cases], seed=0))


def test_without_a_case_column_patients_are_cases(tmp_path: Path) -> None:
    cases = read_cohort(_blocks(tmp_path, "specimen,patient_id,slide_id"))
    assert [len(case.slides) for case in cases] == [3] * 12


@pytest.mark.parametrize(
    ("rows", "group"),
    [
        (["1,TCGA-3C-AALI-01Z-00-DX1,x", "2,TCGA-3C-AALI-11A-01-TS1,x"], "TCGA-3C-AALI"),
        (["1,TCGA.3C.AALI.01,x", "2,tcga-3c-aali-11A,x"], "TCGA-3C-AALI"),  # R writes dots
        (["TCGA-3C-AALI-01,a,x", "TCGA-3C-AALI-06,b,x"], "TCGA-3C-AALI"),  # cases that are samples
        (["1,BRCA_TCGA-3C-AALI-01Z-00-DX1.svs,x", "2,dir/TCGA-3C-AALI-01A-01-BS1.svs,x"], "TCGA-3C-AALI"),
        (["1,C3L-00001-21,x", "2,C3L-00001-26,x"], "C3L-00001"),
        (["1,GTEX-1117F-0226,x", "2,GTEX-1117F-0326,x"], "GTEX-1117F"),
    ],
)
def test_barcodes_group_cases_with_other_ids(
    tmp_path: Path, rows: list[str], group: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        cases = read_cohort(_table(tmp_path, "\n".join(["case,slide,label", *rows])))
    assert [case.group for case in cases] == [group] * 2
    assert "cases that share a patient's barcode stay in one split (1 groups)" in caplog.text


@pytest.mark.parametrize("one", ["TCGA-3C-AALI", "C3L-00001", "GTEX-1117F"])
@pytest.mark.parametrize("other", ["TCGA-3C-AALJ", "TCGA-3D-AALI", "C3N-00001", "GTEX-1117G", "xTCGA-3C-AALI2"])
def test_other_barcodes_are_other_patients(one: str, other: str) -> None:
    rows = [Identity("1", (f"{one}-1",), "", {}), Identity("2", (f"{other}-1",), "", {})]
    assert len(set(group_patients(rows, "t").groups.values())) == 2


def test_barcodes_patients_and_groups_are_joined(tmp_path: Path) -> None:
    table = _table(
        tmp_path, "case,patient,slide,group\n1,A,TCGA-AA-0001-01,g\n2,A,x,g\n3,B,TCGA-AA-0001-11,h\n4,C,y,i\n5,D,z,i\n"
    )
    cases = read_cohort(table)
    assert [case.group for case in cases] == ["g + h", "g + h", "g + h", "i", "i"]
    check_splits([case._replace(split="train" if "g" in case.group else "test") for case in cases], needed=())
    with pytest.raises(CohortError, match=r"group g \+ h is in two splits: case 1 in train, case 3 in test"):
        check_splits([c._replace(split="test" if c.id == "3" else "train") for c in cases], needed=())


def test_two_patient_columns_that_contradict_are_refused(tmp_path: Path) -> None:
    text = "case,patient,subject_id,slide\n1,A,x,a\n2,A,y,b\n3,B,y,c\n4,C,z,d\n"
    with pytest.raises(
        CohortError, match=r"'patient' and 'subject_id' may both identify patients.* columns: \{patient: NAME\}"
    ):
        read_cohort(_table(tmp_path, text))
    cases = read_cohort(_table(tmp_path, text), columns={"patient": "subject_id"})
    assert [case.group for case in cases] == ["x", "y", "y", "z"]
    nested = read_cohort(_table(tmp_path, text.replace("2,A", "2,B").replace("4,C", "4,B")))
    assert [case.group for case in nested] == ["A", "B", "B", "B"]  # the column with fewer patients decides


def test_a_column_that_does_not_identify_patients_can_be_ignored(tmp_path: Path) -> None:
    table = _table(tmp_path, "case,patient,slide\n1,in,a\n2,in,b\n3,out,c\n")
    assert [case.group for case in read_cohort(table)] == ["in", "in", "out"]
    assert [case.group for case in read_cohort(table, columns={"patient": None})] == ["1", "2", "3"]


REFUSED = {
    "a case of two patients": ("case,patient,slide\n1,A,a\n1,B,b\n", r":2 and :3: case 1 has two patients \('A' and 'B'\)"),
    "no patient": ("case,patient,slide\n1,A,a\n2,,b\n", r":3: the patient is empty.*columns: \{patient: null\}"),
    "an unknown patient": ("case,patient,slide\n1,A,a\n2,[Not Available],b\n", r":3: the patient is empty \('\[Not"),
    "an unknown case": ("case,slide\n1,a\nNone,b\n", r":3: the case is empty \('None' means missing\)"),
    "no group": ("slide,group\na,g\nb,NA\n", r":3: the group is empty"),
    "capitals of a patient": ("case,patient,slide\n1,P1,a\n2,p1,b\n", r"patient values with nearly .*'P1' .*:2\) and 'p1' .*:3"),
    "a number as text and as number": ("patient,slide\n7,a\n7.0,b\n", r"cases with nearly the same spelling: '7' .* '7.0'"),
    "a space in a case": ("case,slide\nP1,a\nP 1,b\n", "cases with nearly the same spelling"),
    "capitals of a group": ("slide,group\na,g\nb,G\n", "groups with nearly the same spelling"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_doubtful_patients_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        read_cohort(_table(tmp_path, text))


def test_accents_are_equal_in_both_unicode_forms(tmp_path: Path) -> None:
    text = "patient,slide\nJos\u00e9,a\nJose\u0301,b\n\u200bJos\u00e9\u00a0,c\n"
    (case,) = read_cohort(_table(tmp_path, text))
    assert (case.id, case.slides) == ("Jos\u00e9", ("a", "b", "c"))


def test_leading_zeros_count(tmp_path: Path) -> None:
    cases = read_cohort(_table(tmp_path, "patient,slide\n007,a\n7,b\n0070,c\n"))
    assert [case.id for case in cases] == [case.group for case in cases] == ["007", "7", "0070"]


def test_a_slide_table_identifies_patients_too(tmp_path: Path) -> None:
    table = _table(tmp_path, "case,label\n1,x\n2,y\n3,x\n")
    slides = _table(tmp_path, "case,patient,slide\n1,A,a\n2,A,b\n3,B,c\n", "slides.csv")
    assert [case.group for case in read_cohort(table, slide_table=slides)] == ["A", "A", "B"]


def test_sites_that_share_a_patient_are_one() -> None:
    cases = [
        Case("TCGA-AA-0001", ("a",), group="A"), Case("TCGA-BB-0001", ("b",), group="A"),
        Case("TCGA-CC-0001", ("c",), group="C"),
    ]  # fmt: skip
    assert [case.group for case in group_by_site(cases)] == ["AA + BB", "AA + BB", "CC"]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_groups_are_connected_components_in_any_order(rows: list[tuple[int, int, int]], shuffler: object) -> None:
    """The reference joins sets of cases until nothing changes."""
    identities = [Identity(f"c{c}", (f"TCGA-AA-000{b}",), f"g{g}", {}) for c, g, b in rows]
    groups = group_patients(identities, "t").groups
    parts = {f"c{c}": {f"c{c}"} for c, _, _ in rows}
    for _ in rows:
        for one in rows:
            for other in rows:
                if any(a == b for a, b in zip(one, other, strict=True)):
                    joined = parts[f"c{one[0]}"] | parts[f"c{other[0]}"]
                    for name in joined:
                        parts[name] = joined
    assert {frozenset(part) for part in parts.values()} == {
        frozenset(case for case in groups if groups[case] == group) for group in groups.values()
    }
    shuffler.shuffle(identities)  # type: ignore[attr-defined]
    assert group_patients(identities, "t").groups == groups
