import pytest

from e2e_abmilx.cohort import Case, CohortError, encode_labels, encode_multi_labels
from e2e_abmilx.cohort.targets import encode_times


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


def test_unknown_labels_of_multi_label_cohorts_are_named() -> None:
    known = [Case(name, (name,), labels=labels) for name, labels in {"a": (1, -1), "b": (-1, 0)}.items()]
    assert encode_multi_labels(known, ["ER", "PR"]) == [(1, -1), (-1, 0)]
    with pytest.raises(CohortError, match="1 of 3 cases have no known label, first c; complete the columns ER, PR"):
        encode_multi_labels([*known, Case("c", ("c",), labels=(-1, -1))], ["ER", "PR"])
    with pytest.raises(CohortError, match="class 'PR' is unknown in all 1 cases"):
        encode_multi_labels(known[:1], ["ER", "PR"])


def test_times_are_numbered_by_bin(caplog: pytest.LogCaptureFixture) -> None:
    cases = [Case(str(k), (str(k),), time=float(k), event=1, split="train" if k < 8 else "test") for k in range(12)]
    found = encode_times(cases, 2, "train")
    assert found.edges == (3.5,)
    assert found.classes == ("0", "1")
    assert found.numbers == [0] * 4 + [1] * 8
    assert not caplog.text
    assert encode_times(cases, 2, "cohort").edges == (5.5,)
    assert "events of the test cases" in caplog.text


def test_cases_without_a_time_are_named() -> None:
    cases = [Case("a", ("a",), time=1.0, event=1, split="train"), Case("b", ("b",))]
    with pytest.raises(CohortError, match=r"1 cases have no survival time, first b; complete labels\.csv"):
        encode_times(cases, 1, "train", table="labels.csv")
