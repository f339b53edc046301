import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.seen_cases import Marks, SeenCases

# Hashes of thumbnails: 256 bits, whose first, the mean, is 0. LOOK and OTHER differ in about half of them.
LOOK, OTHER = "5a3c" * 16, "0ff0" * 16
NEAR = LOOK[:-1] + "d"  # one bit of LOOK differs
DIGEST, OTHER_DIGEST = "0123456789abcdef", "fedcba9876543210"  # of features


def _seen(cases: Sequence[Case], marks: Marks | None = None) -> SeenCases:
    return SeenCases.of(cases, marks or {})


def _names(seen: SeenCases, *cases: Case, marks: Marks | None = None) -> dict[str, str]:
    return seen.find_names(cases, lambda _: marks or {})


def _case(name: str, *slides: str) -> Case:
    return Case(name, slides or (name,))


@pytest.mark.parametrize("spelling", ["Case 7", "case7", " CASE 7 ", "case 7.0", "Case\u00a07"])
def test_a_case_is_found_in_other_spellings(spelling: str) -> None:
    seen = _seen([_case("Case 7", "a")])
    assert _names(seen, _case(spelling, "b")) == {spelling: f"case {spelling!r} is named like one of theirs"}


@pytest.mark.parametrize("spelling", ["Case 70", "Case 07", "Case-7", "7", ""])
def test_other_names_are_other_cases(spelling: str) -> None:
    assert not _names(_seen([_case("Case 7", "a")]), _case(spelling, "b"))


def test_a_slide_is_found_in_other_spellings_and_under_another_case() -> None:
    found = _names(_seen([_case("p", "Slide 1", "Slide 2")]), _case("q", "x", "slide2"))
    assert list(found) == ["q"]
    assert "slide 'slide2' is named like one" in found["q"]


@pytest.mark.parametrize(
    ("trained", "tested"),
    [
        (_case("TCGA-3C-AALI", "a"), _case("c", "TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF")),
        (_case("c", "TCGA-3C-AALI-01Z-00-DX1"), _case("TCGA-3C-AALI", "b")),
        (_case("c", "TCGA-3C-AALI-01Z-00-DX1"), _case("d", "TCGA-3C-AALI-01A-01-TS1")),
        (_case("tcga.3c.aali", "a"), _case("TCGA_3C_AALI", "b")),
        (_case("C3L-00001", "a"), _case("c", "C3L-00001-21")),
        (_case("c", "slide_C3N-01234-22"), _case("d", "c3n.01234")),
    ],
)
def test_patients_are_known_by_their_barcodes(trained: Case, tested: Case) -> None:
    found = _names(_seen([trained]), tested)
    assert list(found) == [tested.id]
    assert found[tested.id].startswith("patient ")


def test_other_patients_of_the_same_site_are_not_found() -> None:
    seen = _seen([_case("TCGA-3C-AALI", "TCGA-3C-AALI-01Z-00-DX1")])
    assert not _names(seen, _case("TCGA-3C-AALJ", "TCGA-3C-AALJ-01Z-00-DX1"), _case("C3L-00001"))


def test_cohorts_that_number_their_slides_alike_are_not_confused() -> None:
    seen = _seen([_case("1"), _case("2")], {"1": LOOK, "2": LOOK})
    assert not _names(seen, _case("1"), _case("2"), marks={"1": OTHER, "2": OTHER})
    assert list(_names(seen, _case("1"), _case("2"), marks={"1": NEAR, "2": OTHER})) == ["1"]


@pytest.mark.parametrize(
    ("trained", "tested"),
    [(None, OTHER), (LOOK, None), (None, None), (DIGEST, OTHER_DIGEST), (DIGEST, OTHER), (LOOK, OTHER_DIGEST)],
)
def test_a_name_decides_where_looks_are_unknown(trained: str | None, tested: str | None) -> None:
    """Features may have been extracted again, so that another digest does not prove another slide."""
    assert _names(_seen([_case("1")], {"1": trained}), _case("1"), marks={"1": tested})


def test_all_slides_of_a_case_must_look_different() -> None:
    seen = _seen([_case("p", "1", "2")], {"1": LOOK, "2": LOOK})
    assert not _names(seen, _case("p", "1", "2"), marks={"1": OTHER, "2": OTHER})
    assert _names(seen, _case("p", "1", "2"), marks={"1": OTHER, "2": LOOK})
    assert _names(seen, _case("p", "1", "2"), marks={"1": OTHER})
    assert _names(seen, _case("q", "1", "3"), marks={"1": OTHER, "3": OTHER})  # nothing is known of slide 3


def test_a_case_with_other_slides_is_the_same_case() -> None:
    seen = _seen([_case("p", "1")], {"1": LOOK})
    assert _names(seen, _case("p", "2"), marks={"2": OTHER}) == {"p": "case 'p' is named like one of theirs"}


def test_looks_are_read_only_where_names_agree() -> None:
    asked: list[str] = []

    def marks_of(cases: Sequence[Case]) -> Marks:
        asked.extend(case.id for case in cases)
        return {slide: OTHER for case in cases for slide in case.slides}

    _seen([_case("1")], {"1": LOOK}).find_names([_case("0"), _case("1"), _case("2")], marks_of)
    assert asked == ["1"]


def test_renamed_copies_are_known_by_their_look() -> None:
    seen = _seen([_case("p", "1")], {"1": LOOK})
    cases = [_case("new", "x", "y"), _case("other", "z")]
    found = seen.find_copies(cases, {"x": OTHER, "y": NEAR, "z": OTHER})
    assert found == {"new": "slide 'y' looks like one of their slides (0% of its thumbnail's hash differ)"}
    assert not seen.find_copies(cases, {"x": None, "y": DIGEST, "z": None})


def test_renamed_copies_are_known_by_their_features() -> None:
    seen = _seen([_case("p", "1"), _case("q", "2")], {"1": DIGEST, "2": None})
    found = seen.find_copies([_case("new", "x"), _case("other", "z")], {"x": DIGEST, "z": OTHER_DIGEST})
    assert found == {"new": "slide 'x' has the features of one of their slides"}
    assert not seen.find_copies([_case("new", "x")], {"x": None})


def test_slides_without_marks_can_only_be_known_by_name() -> None:
    assert not _seen([_case("1")]).has_marks
    assert not _seen([_case("1")], {"1": None}).has_marks
    assert _seen([_case("1"), _case("2")], {"1": None, "2": LOOK}).has_marks


_NAMES = st.text("abcXYZ 0123456789-.", min_size=1, max_size=12)


@given(
    st.dictionaries(_NAMES, st.lists(_NAMES, min_size=1, max_size=3), max_size=5), st.sampled_from([None, LOOK, DIGEST])
)
def test_json_keeps_everything(cohort: dict[str, list[str]], mark: str | None) -> None:
    cases = [Case(name, tuple(slides)) for name, slides in cohort.items()]
    seen = _seen(cases, {slide: mark for case in cases for slide in case.slides})
    again = SeenCases.from_json(json.loads(json.dumps(seen.as_json())))
    assert again == seen
    assert again is not None
    assert again.cases == len(cases)
    assert set(_names(again, *cases, marks={})) == set(cohort)  # each training case is found


def test_cases_of_an_earlier_training_stay_known() -> None:
    earlier = _seen([_case("p", "1"), _case("q", "2")], {"1": LOOK, "2": LOOK})
    both = SeenCases.of([_case("q", "2"), _case("r", "1", "3")], {"1": OTHER, "2": LOOK, "3": None}, earlier)
    assert both.cases == 3
    assert list(_names(both, *map(_case, "pqrs"))) == ["p", "q", "r"]
    for mark in (LOOK, OTHER):  # slides 1 of both trainings
        assert _names(both, _case("x", "1"), marks={"1": mark})
        assert both.find_copies([_case("new", "y")], {"y": mark})
    assert not _names(both, _case("x", "2"), marks={"2": OTHER})
    assert both.include(earlier)
    assert not earlier.include(both)


def test_a_second_training_on_the_same_cases_adds_nothing() -> None:
    cases, marks = [_case("p", "1"), _case("TCGA-3C-AALI", "2")], {"1": LOOK}
    assert SeenCases.of(cases, marks, _seen(cases, marks)) == _seen(cases, marks)


def test_no_seen_cases_are_null() -> None:
    assert SeenCases.from_json(None) is None


def test_names_cannot_be_read_from_the_json() -> None:
    cases = [Case("Smith-1950", ("biopsy-4711",)), Case("TCGA-3C-AALI", ("TCGA-3C-AALI-01Z-00-DX1",), "tumour")]
    text = json.dumps(_seen(cases, {"biopsy-4711": LOOK}).as_json()).lower()
    for secret in ("smith", "1950", "biopsy", "4711", "tcga", "aali", "dx1", "tumour"):
        assert secret not in text
