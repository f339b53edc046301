"""Values of a regression cohort: what is read, what is refused, and folds with alike distributions."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.cohort import (
    Case,
    CohortError,
    CohortPlan,
    assign_folds,
    encode_values,
    hold_out_validation,
    read_cohort,
)
from e2e_abmilx.cohort.values import read_value, value_bins, value_scale


def _table(folder: Path, values: Sequence[str], *, splits: Sequence[str] = ()) -> Path:
    rows = [
        f'case-{number},"{value}",{split}'
        for number, (value, split) in enumerate(zip(values, splits or ["train"] * len(values), strict=True))
    ]
    path = folder / "labels.csv"
    path.write_text("\n".join(["case,tmb,split", *rows]))
    return path


def _read(table: Path) -> list[Case]:
    return read_cohort(table, columns={"label": "tmb"}, target="regression")


def test_numbers_are_read_as_they_are_written(tmp_path: Path) -> None:
    texts = ["0", "-1.5", "+2", "1e-3", ".5", "7.", "3.0", "1E2"]
    cases = _read(_table(tmp_path, texts))
    assert encode_values(cases) == [0.0, -1.5, 2.0, 1e-3, 0.5, 7.0, 3.0, 100.0]
    plan = CohortPlan(tmp_path / "labels.csv", columns={"label": "tmb"}, target="regression")
    assert plan.number(cases) == ([0.0, -1.5, 2.0, 1e-3, 0.5, 7.0, 3.0, 100.0], (), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,5", "labels.csv:3: value '1,5' is not a number; write a decimal point, and no separators of thousands"),
        ("1.234,5", "write a decimal point, and no separators"),
        ("12 mm", "value '12 mm' is not a number; write the number alone, in the same unit in all rows"),
        ("5%", "write the number alone"),
        ("<0.1", "write the number alone"),
        ("1_000", "write the number alone"),
        ("٣", "is not a number"),
        ("inf", "values must be finite"),
        ("-Infinity", "values must be finite"),
        ("high", r"correct it, say which column holds the numbers with columns: \{label: NAME\}, or set target: label"),
        ("1e40", r"value '1e40' is too large; values must lie within ±1e\+30"),
    ],
)
def test_everything_else_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=message):
        _read(_table(tmp_path, ["0.5", text]))


@given(st.floats(-1e30, 1e30, allow_subnormal=False))
def test_every_number_of_python_is_read_exactly(value: float) -> None:
    assert read_value(repr(value), "here") == value


@pytest.mark.parametrize("text", ["", "NA", "nan", "-", "#N/A"])
def test_missing_values_are_refused_except_in_prediction(text: str, tmp_path: Path) -> None:
    cases = _read(_table(tmp_path, ["0.5", text]))
    with pytest.raises(CohortError, match=r"labels.csv: 1 of 2 cases have no value, first case-1 .*complete the table"):
        encode_values(cases, table=tmp_path / "labels.csv")
    plan = CohortPlan(tmp_path / "labels.csv", target="regression")
    known, unknown = plan.number(cases, "predict").numbers
    assert known == 0.5
    assert math.isnan(unknown)


def test_a_table_without_the_column_says_how_to_name_it(tmp_path: Path) -> None:
    _table(tmp_path, ["1", "2"])
    cases = read_cohort(tmp_path / "labels.csv", target="regression")
    with pytest.raises(CohortError, match=r"2 of 2 cases have no value, .* with columns: \{label: NAME\}"):
        encode_values(cases)


def test_rows_of_a_case_must_agree_in_value_but_not_in_spelling(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("slide,case,label\na,p,1\nb,p,1.0\n")
    (case,) = read_cohort(path, target="regression")
    assert (case.slides, case.value) == (("a", "b"), 1.0)
    path.write_text("slide,case,label\na,p,1\nb,p,1.5\n")
    with pytest.raises(CohortError, match=r"labels.csv:2 and :3: case p has two values \(1.0 and 1.5\)"):
        read_cohort(path, target="regression")


def test_classes_are_refused_and_slides_alone_have_no_value(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"classes is \['a', 'b'\] for target regression, which has none"):
        CohortPlan(tmp_path / "labels.csv", target="regression", classes=["a", "b"])
    (number,) = CohortPlan(None, target="regression").number([Case("a", ("a",))]).numbers
    assert isinstance(number, float)
    assert math.isnan(number)


def test_the_scale_is_mean_and_std_of_numpy() -> None:
    assert value_scale([1.0, 2.0, 6.0], "t") == pytest.approx((3.0, np.std([1, 2, 6])))


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0])
def test_constant_values_are_refused(value: float) -> None:
    with pytest.raises(CohortError, match=rf"t.csv: all 7 training cases have the value {value:g}, from which nothing"):
        value_scale([value] * 7, "t.csv")


def test_differences_that_float32_cannot_resolve_are_refused() -> None:
    value_scale([100_000.0, 100_001.0, 100_005.0], "t.csv")
    with pytest.raises(CohortError, match=r"around 1e\+07, have a standard deviation of .* subtract a constant"):
        value_scale([10_000_000.0, 10_000_001.0], "t.csv")


def _cohort(values: Sequence[float]) -> list[Case]:
    return [Case(f"c{number:03}", (f"s{number}",), value=value) for number, value in enumerate(values)]


@pytest.mark.parametrize("size", [3, 5, 8, 20, 100])
def test_folds_have_alike_values(size: int) -> None:
    values = np.random.default_rng(size).lognormal(size=size).tolist()
    folds = min(5, size)
    tested = [
        [case.value for case in assign_folds(_cohort(values), fold=fold, folds=folds, seed=0, stratify_by="value")
         if case.split == "test"]
        for fold in range(folds)
    ]  # fmt: skip
    assert sorted(value for fold in tested for value in fold) == sorted(values)
    if size == 100:
        tenths = np.searchsorted(np.quantile(values, np.arange(1, 10) / 10), values, side="right")
        bin_of = dict(zip(values, tenths.tolist(), strict=True))
        for fold in tested:
            assert sorted(bin_of[value] for value in fold) == sorted([*range(10)] * 2)  # two of each tenth


@pytest.mark.parametrize("size", [8, 16, 48, 200])
def test_held_out_validation_spans_the_values(size: int) -> None:
    values = np.random.default_rng(0).permutation(np.arange(float(size))).tolist()
    cases = [case._replace(split="train") for case in _cohort(values)]
    held_out = hold_out_validation(cases, fraction=0.125, seed=0, stratify_by="value")
    chosen = [case.value for case in held_out if case.split == "val"]
    assert len(chosen) == size // 8
    bins = min(10, size // 8)
    assert len({int(value * bins / size) for value in chosen}) == bins  # at least one of each bin


def test_bins_of_equal_and_unknown_values() -> None:
    values = [0.0] * 10 + [1.0, 2.0, 3.0, 4.0] + [math.nan]
    bins = value_bins(values, 1 / 5)
    assert len(set(bins[:10])) == 1
    assert bins[-1] == "unknown"
    assert bins[0] != bins[13]
    assert value_bins([math.nan] * 3, 0.5) == ["unknown"] * 3
    assert value_bins([], 0.5) == []
