from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.cohort import Case, CohortError, encode_labels, encode_multi_labels, match_slides, read_cohort
from e2e_abmilx.cohort.label_tables import slide_name

UUID = "F6E9A5DF-D8FB-45CF-B4BD-C6B76294C291"
OTHER = "62DFE56B-B84C-40F9-9625-FCB55767B70D"
SLIDE = "TCGA-3C-AALI-01Z-00-DX1"


def test_labels_are_numbered_in_order() -> None:
    cases = [Case(str(k), (str(k),), label) for k, label in enumerate(["10", "2", "2"])]
    assert encode_labels(cases, None) == ([1, 0, 0], ("2", "10"))
    assert encode_labels(cases, ["10", "2"]) == ([0, 1, 1], ("10", "2"))
    with pytest.raises(CohortError, match="label '2' of case 1 is not one of the classes"):
        encode_labels(cases, ["10"])


def test_missing_and_misspelt_labels_are_named() -> None:
    cases = [Case("a", ("a",), "ILC"), Case("b", ("b",), ""), Case("c", ("c",), "IDC ")]
    with pytest.raises(CohortError, match="1 of 3 cases have no label, first b"):
        encode_labels(cases, None)
    with pytest.raises(CohortError, match=r"label 'IDC ' \(is it 'IDC'\?\) of case c"):
        encode_labels([cases[0], cases[2]], ["IDC", "ILC"])


def test_unknown_labels_of_several_classes_are_named() -> None:
    known = [Case(name, (name,), labels=labels) for name, labels in {"a": (1, -1), "b": (-1, 0)}.items()]
    assert encode_multi_labels(known, ["ER", "PR"]) == [(1, -1), (-1, 0)]
    with pytest.raises(
        CohortError, match="1 of 3 cases have no known label, first c; complete the columns ER, PR"
    ):
        encode_multi_labels([*known, Case("c", ("c",), labels=(-1, -1))], ["ER", "PR"])
    with pytest.raises(CohortError, match="class 'PR' is unknown in all 1 cases"):
        encode_multi_labels(known[:1], ["ER", "PR"])


def _match(slides: list[str], there: list[str]) -> tuple[list[str] | None, list[str]]:
    """The slides that a case gets of those that are there, and what is complained about."""
    matched, complaints = match_slides([Case("c", tuple(slides))], there, Path("cache"))
    return list(matched[0].slides) if matched else None, complaints


@pytest.mark.parametrize(
    ("wanted", "there", "found"),
    [
        ("a", ["a", "ab"], ["a"]),
        ("a", ["a.svs", "b"], ["a.svs"]),
        ("a", ["a", "a.svs"], ["a"]),
        (SLIDE, [f"{SLIDE}.{UUID}"], [f"{SLIDE}.{UUID}"]),
        (SLIDE, [f"{SLIDE}.{UUID}.svs"], [f"{SLIDE}.{UUID}.svs"]),
        (SLIDE, [SLIDE, f"{SLIDE}.{UUID}"], [SLIDE]),
        (f"{SLIDE}.{UUID}", [SLIDE], [SLIDE]),
        (f"{SLIDE}.{UUID}", [SLIDE, f"{SLIDE}.{UUID}"], [f"{SLIDE}.{UUID}"]),
        ("7.0", ["7"], ["7"]),  # as pandas writes a column of numbers
        ("7.0", ["7", "7.0"], ["7.0"]),
        ("7.0", ["7.svs"], ["7.svs"]),
        ("Pr\u00e4parat", ["Pra\u0308parat"], ["Pra\u0308parat"]),  # NFC and NFD
        (
            "TCGA-3C-AALI",
            [f"{SLIDE}.{UUID}", "TCGA-3C-AALI-01A-01-TS1"],
            ["TCGA-3C-AALI-01A-01-TS1", f"{SLIDE}.{UUID}"],
        ),
    ],
)
def test_names_that_mean_a_slide(wanted: str, there: list[str], found: list[str]) -> None:
    slides, _ = _match([wanted], there)
    assert slides == found


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ("a", ["ab"]),  # no prefix
        ("b", ["ab"]),  # no substring
        ("ab", ["a"]),
        ("A", ["a"]),
        ("7", ["007"]),
        ("7.1", ["7"]),
        (f"{SLIDE}.{UUID}", [f"{SLIDE}.{OTHER}"]),  # another file of the slide
        ("TCGA-3C-AALI-01Z-00-DX", [SLIDE]),
        ("TCGA-3C-AAL", [SLIDE]),
        ("TCGA-3C", [SLIDE]),
        ("TCGA-3C-AALI-01Z", [SLIDE]),
        ("TCGA-3C-AALI", ["TCGA-3C-AALJ-01Z-00-DX1"]),
        ("TCGA-3C-AALI", ["xTCGA-3C-AALI-01Z-00-DX1"]),
    ],
)
def test_names_that_mean_none(wanted: str, there: list[str]) -> None:
    slides, complaints = _match([wanted], there)
    assert slides is None
    assert complaints[0].startswith(f"case c: no slide {wanted!r} in cache")
    assert complaints[1:] == [f"slide {name!r} in cache has no label" for name in there]


def test_a_name_of_two_files_is_refused() -> None:
    slides, complaints = _match([SLIDE], [f"{SLIDE}.{UUID}", f"{SLIDE}.{OTHER}"])
    assert slides is None
    assert f"slide '{SLIDE}' is one of" in complaints[0]
    assert "write the whole name" in complaints[0]


def test_two_cases_cannot_have_one_slide() -> None:
    cases = [Case("a", ("TCGA-3C-AALI",)), Case("b", (SLIDE,))]
    with pytest.raises(CohortError, match=f"slide '{SLIDE}' in cache belongs to case a and to case b"):
        match_slides(cases, [SLIDE], Path("cache"))


def test_unmatched_rows_and_slides_are_listed_with_near_misses(tmp_path: Path) -> None:
    cases = [Case("a", ("TCGA-01",)), Case("b", ("TCGA-02",)), Case("c", ("x",))]
    matched, complaints = match_slides(cases, ["TCGA-01", "TCGA-O2", "extra"], tmp_path)
    assert [case.id for case in matched] == ["a"]
    assert any("case b: no slide 'TCGA-02'" in line and "is it 'TCGA-O2'?" in line for line in complaints)
    assert any("case c" in line and "is it" not in line for line in complaints)
    assert any("slide 'extra'" in line and "no label" in line for line in complaints)


@given(st.sets(st.text("ab-.", min_size=1, max_size=4)), st.sets(st.text("ab-.", min_size=1, max_size=4)))
def test_nothing_is_lost_or_guessed(wanted: set[str], there: set[str]) -> None:
    cases = [Case(name, (name,)) for name in sorted(wanted)]
    matched, complaints = match_slides(cases, there, Path("cache"))
    assert [case.slides[0] for case in matched] == sorted(wanted & there)
    assert len(complaints) == len(wanted ^ there)


def test_real_tables_meet_files_as_the_portal_names_them(shared: Path) -> None:
    cases = read_cohort(shared / "data/labels/survpath/tcga_hnsc.csv")
    files = [slide for case in cases for slide in case.slides]
    assert match_slides(cases, files, Path("cache")) == (cases, [])
    by_slide = [case._replace(slides=tuple(slide.split(".")[0] for slide in case.slides)) for case in cases]
    assert match_slides(by_slide, files, Path("cache")) == (cases, [])
    by_patient = [case._replace(slides=(case.id,)) for case in cases]
    matched, complaints = match_slides(by_patient, files, Path("cache"))
    assert [(case.id, sorted(case.slides)) for case in matched] == [
        (case.id, sorted(case.slides)) for case in cases
    ]
    assert not complaints


def test_a_name_with_a_semicolon_is_one_slide_where_its_parts_are_none() -> None:
    cases = [Case("one", ("semi", "colon")), Case("two", ("a", "b"))]
    matched, complaints = match_slides(cases, ["semi;colon", "a", "b", "a;b"], Path("cache"))
    assert [case.slides for case in matched] == [("semi;colon",), ("a", "b")]
    assert complaints == ["slide 'a;b' in cache has no label"]


@pytest.mark.parametrize("name", ["a::b", "s3:x", "12:30:05", "C:x"])
def test_colons_are_part_of_a_name(name: str) -> None:
    matched, complaints = match_slides([Case("one", (slide_name(f"{name}.tif"),))], [name], Path("cache"))
    assert [case.slides for case in matched] == [(name,)]
    assert complaints == []
