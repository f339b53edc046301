from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.cohort import Case, CohortError, match_slides, read_cohort
from e2e_abmilx.cohort.label_tables import slide_name

UUID = "F6E9A5DF-D8FB-45CF-B4BD-C6B76294C291"
OTHER = "62DFE56B-B84C-40F9-9625-FCB55767B70D"
SLIDE = "TCGA-3C-AALI-01Z-00-DX1"


def _match(slides: list[str], existing: list[str]) -> tuple[list[str] | None, list[str]]:
    """Return the slides that a case is matched with, and the complaints."""
    matched, complaints = match_slides([Case("c", tuple(slides))], existing, Path("cache"))
    return list(matched[0].slides) if matched else None, complaints


@pytest.mark.parametrize(
    ("wanted", "existing", "found"),
    [
        ("a", ["a", "ab"], ["a"]),
        ("a", ["a.svs", "b"], ["a.svs"]),
        ("a", ["a", "a.svs"], ["a"]),
        (SLIDE, [f"{SLIDE}.{UUID}"], [f"{SLIDE}.{UUID}"]),
        (SLIDE, [f"{SLIDE}.{UUID}.svs"], [f"{SLIDE}.{UUID}.svs"]),
        (SLIDE, [SLIDE, f"{SLIDE}.{UUID}"], [SLIDE]),
        (f"{SLIDE}.{UUID}", [SLIDE], [SLIDE]),
        (f"{SLIDE}.{UUID}", [SLIDE, f"{SLIDE}.{UUID}"], [f"{SLIDE}.{UUID}"]),
        ("7.0", ["7"], ["7"]),  # pandas writes a column of numbers this way
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
def test_names_that_match_a_slide(wanted: str, existing: list[str], found: list[str]) -> None:
    slides, _ = _match([wanted], existing)
    assert slides == found


@pytest.mark.parametrize(
    ("wanted", "existing"),
    [
        ("a", ["ab"]),  # prefixes do not match
        ("b", ["ab"]),  # substrings do not match
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
def test_names_that_match_no_slide(wanted: str, existing: list[str]) -> None:
    slides, complaints = _match([wanted], existing)
    assert slides is None
    assert complaints[0].startswith(f"case c: no slide {wanted!r} in cache")
    assert complaints[1:] == [f"slide {name!r} in cache has no label" for name in existing]


def test_a_name_that_matches_two_files_is_refused() -> None:
    slides, complaints = _match([SLIDE], [f"{SLIDE}.{UUID}", f"{SLIDE}.{OTHER}"])
    assert slides is None
    assert f"slide '{SLIDE}' may be any of" in complaints[0]
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
def test_every_name_is_matched_exactly_or_reported(wanted: set[str], existing: set[str]) -> None:
    cases = [Case(name, (name,)) for name in sorted(wanted)]
    matched, complaints = match_slides(cases, existing, Path("cache"))
    assert [case.slides[0] for case in matched] == sorted(wanted & existing)
    assert len(complaints) == len(wanted ^ existing)


def test_real_tables_match_files_as_the_portal_names_them(shared: Path) -> None:
    cases = read_cohort(shared / "data/labels/survpath/tcga_hnsc.csv")
    files = [slide for case in cases for slide in case.slides]
    assert match_slides(cases, files, Path("cache")) == (cases, [])
    by_slide = [case._replace(slides=tuple(slide.split(".")[0] for slide in case.slides)) for case in cases]
    assert match_slides(by_slide, files, Path("cache")) == (cases, [])
    by_patient = [case._replace(slides=(case.id,)) for case in cases]
    matched, complaints = match_slides(by_patient, files, Path("cache"))
    assert [(case.id, sorted(case.slides)) for case in matched] == [(case.id, sorted(case.slides)) for case in cases]
    assert not complaints


def test_a_name_with_a_semicolon_is_one_slide_if_no_part_matches() -> None:
    cases = [Case("one", ("semi", "colon")), Case("two", ("a", "b"))]
    matched, complaints = match_slides(cases, ["semi;colon", "a", "b", "a;b"], Path("cache"))
    assert [case.slides for case in matched] == [("semi;colon",), ("a", "b")]
    assert complaints == ["slide 'a;b' in cache has no label"]


@pytest.mark.parametrize("name", ["a::b", "s3:x", "12:30:05", "C:x"])
def test_colons_are_part_of_a_name(name: str) -> None:
    matched, complaints = match_slides([Case("one", (slide_name(f"{name}.tif"),))], [name], Path("cache"))
    assert [case.slides for case in matched] == [(name,)]
    assert complaints == []
