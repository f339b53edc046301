from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slide_runs import message_of, write_slide_config

from e2e_abmilx.cohort import CohortError, TargetKind
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.datamodules.class_ratio import check_ratio, draws_per_case


def _data(cohort: Path, stores: Path, **how: object) -> SlideDataModule:
    settings = {"columns": {"label": "lesion"}, "patches_per_bag": 4, "batch_size": 1, "num_workers": 0, **how}
    data = SlideDataModule(stores, cohort / "labels.csv", **settings)  # type: ignore[arg-type]
    data.setup("fit")
    return data


@given(st.lists(st.integers(0, 2), max_size=30), st.dictionaries(st.sampled_from("abc"), st.integers(1, 5)))
def test_each_class_has_as_many_draws_as_a_table_with_repeated_rows(labels: list[int], times: dict[str, int]) -> None:
    draws = draws_per_case(labels, "abc", times)
    counts = Counter({label: 0 for label in labels})
    for label, own in zip(labels, draws, strict=True):
        counts[label] += own
    assert counts == {label: labels.count(label) * times.get("abc"[label], 1) for label in labels}


def test_cases_of_a_class_are_drawn_twice_as_different_bags(cohort: Path, stores: Path) -> None:
    data = _data(cohort, stores, oversample={"1": 2})
    bags = list(data.train_dataloader())
    drawn = Counter(bag.cases[0] for bag in bags)
    expected = {case.id: 2 if case.label == "1" else 1 for case in data.cases["train"]}
    assert drawn == expected
    assert set(expected.values()) == {1, 2}
    of_one = [bag.coords.tolist() for bag in bags if bag.cases == (max(drawn, key=drawn.__getitem__),)]
    assert of_one[0] != of_one[1]


def test_once_each_is_the_default(cohort: Path, stores: Path) -> None:
    for one, other in zip(
        _data(cohort, stores).train_dataloader(), _data(cohort, stores, oversample={"1": 1}).train_dataloader(), strict=True
    ):  # fmt: skip
        assert one.cases == other.cases
        assert one.coords.tolist() == other.coords.tolist()


def test_classes_that_are_numbers_need_no_quotes(cohort: Path, stores: Path) -> None:
    assert _data(cohort, stores, oversample={1: 3}).oversample == {"1": 3}


@pytest.mark.parametrize(
    ("target", "balanced", "oversample", "reason"),
    [
        ("multi_label", True, {}, "a case of target multi_label has several"),
        ("regression", True, {}, "target regression has none"),
        ("multi_label", False, {"a": 2}, "target multi_label has no classes that exclude each other"),
        ("regression", False, {"a": 2}, "target regression has no classes"),
        ("survival", False, {"a": 2}, "target survival has no classes"),
        ("label", True, {"a": 2}, "give one of them"),
        ("label", False, {"a": 0}, r"oversample: \{a: 0\} .* must be at least 1"),
    ],
)
def test_settings_that_contradict(target: TargetKind, balanced: bool, oversample: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_ratio(target, balanced=balanced, oversample=oversample)


def test_settings_that_fit() -> None:
    check_ratio("label", balanced=False, oversample={"a": 2})
    check_ratio("survival", balanced=True, oversample={})


def test_unknown_classes_are_refused(cohort: Path, stores: Path, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"oversample: 'ILC' is not one of the classes \['0', '1'\]"):
        _data(cohort, stores, oversample={"ILC": 2}).train_dataloader()
    with pytest.raises(CohortError, match="put the names in quotes"):
        _data(cohort, stores, oversample={True: 2})
    config = write_slide_config(tmp_path, cohort, stores)
    message = message_of(["fit", "--config", str(config), "--data.oversample={ILC: 2}"])
    assert "'ILC' is not one of the classes" in message


def test_the_authors_table(shared: Path) -> None:
    """The classes have as many draws as rows in the authors' table, which repeats some ILC cases at random."""
    tables = shared / "data/labels/authors"
    plain, repeated = (
        pd.read_csv(tables / f"subtyping_tcga_brca{kind}.csv", header=0, names=["case", "slide", "label", "split"])
        for kind in ("", "_resample")
    )
    train, rows = (table[table["split"] == "train"] for table in (plain, repeated))
    draws = draws_per_case([["IDC", "ILC"].index(name) for name in train["label"]], ["IDC", "ILC"], {"ILC": 2})
    assert pd.Series(draws).groupby(train["label"].to_numpy()).sum().to_dict() == {"IDC": 518, "ILC": 276}
    assert rows["label"].value_counts().to_dict() == {"IDC": 518, "ILC": 276}
    assert set(train["slide"]) == set(rows["slide"])
