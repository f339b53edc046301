from pathlib import Path

import pandas as pd
import pytest
from hand_written import classified, regressed, survived, write_run

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import paired_bootstrap
from e2e_abmilx.evaluation.estimators import Auroc
from e2e_abmilx.reports.comparison import compare_on_shared_cases
from e2e_abmilx.reports.measures import measures_of
from e2e_abmilx.runs.read import Run

CASES = [f"case-{number:03d}" for number in range(60)]


def _runs(folder: Path, *tables: pd.DataFrame) -> list[Run]:
    return [write_run(folder / str(number), table) for number, table in enumerate(tables)]


def test_cases_are_joined_by_name(tmp_path: Path) -> None:
    """The two sets have different folds, and each has a case that the other lacks."""
    one = classified(CASES[:-1], ["0", "1"], seed=0, skill=3)
    two = classified(CASES[1:], ["0", "1"], seed=1, skill=1)
    ours = _runs(tmp_path / "a", one.iloc[:20], one.iloc[20:])
    theirs = _runs(tmp_path / "b", two.iloc[::-2], two.iloc[-2::-2])
    measures = measures_of(ours[0].predictions)
    found = compare_on_shared_cases(ours, theirs, measures)
    assert (found.cases, found.only_first, found.only_second) == (58, 1, 1)
    one, two = one[1:], two[:-1]
    first, second = (Auroc(table["probability_1"], table["label"].astype(int)) for table in (one, two))
    difference = paired_bootstrap(first, second, CASES[1:-1])
    assert found.compared["auc"].difference.estimate == pytest.approx(difference.estimate)
    assert found.compared["auc"].difference.p_value == difference.p_value < 0.05
    auc = found.compared["auc"]
    assert auc.first - auc.second == pytest.approx(difference.estimate.point)

    back = compare_on_shared_cases(theirs, ours, measures)
    assert back.compared["auc"].difference.estimate.point == -difference.estimate.point
    assert back.compared["auc"].difference.p_value == difference.p_value


def test_a_set_does_not_differ_from_itself(tmp_path: Path) -> None:
    table = survived(CASES, seed=0)
    (one,), (two,) = _runs(tmp_path / "a", table), _runs(tmp_path / "b", table.iloc[::-1])
    difference = compare_on_shared_cases([one], [two], measures_of(one.predictions)).compared["c_index"].difference
    assert difference.estimate[:5] == (0, 0, 0, 0, 0)
    assert difference.p_value == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.assign(case="other-" + table["case"]), "share no case"),
        (lambda table: table.assign(label=table["label"].replace("0", "1")), "shared cases differ in their label"),
    ],
)  # fmt: skip
def test_runs_of_other_cases_or_labels_are_refused(change: object, message: str, tmp_path: Path) -> None:
    table = classified(CASES, ["0", "1"], seed=0)
    ours, theirs = _runs(tmp_path / "a", table), _runs(tmp_path / "b", change(table))  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        compare_on_shared_cases(ours, theirs, measures_of(ours[0].predictions))


def test_different_times_of_a_case_are_refused(tmp_path: Path) -> None:
    table = survived(CASES, seed=0)
    later = table.assign(time=table["time"].where(table["case"] != CASES[3], 500.0))
    ours, theirs = _runs(tmp_path / "a", table), _runs(tmp_path / "b", later)
    with pytest.raises(InputError, match="1 of 60 shared cases differ in their time, first case-003"):
        compare_on_shared_cases(ours, theirs, measures_of(ours[0].predictions))


def test_values_are_compared_and_different_ones_refused(tmp_path: Path) -> None:
    table = regressed(CASES, seed=0, noise=0.2)
    ours, theirs = _runs(tmp_path / "a", table), _runs(tmp_path / "b", regressed(CASES, seed=1))
    found = compare_on_shared_cases(ours, theirs, measures_of(ours[0].predictions)).compared
    for name, sign in {"r2": 1, "pearson": 1, "spearman": 1, "mae": -1}.items():
        assert sign * found[name].difference.estimate.low > 0 or sign * found[name].difference.estimate.high < 0
        assert found[name].difference.p_value < 0.01
    other = _runs(tmp_path / "c", table.assign(value=table["value"].where(table["case"] != CASES[3], 1.5)))
    with pytest.raises(InputError, match="1 of 60 shared cases differ in their value, first case-003"):
        compare_on_shared_cases(ours, other, measures_of(ours[0].predictions))


def test_two_predictions_of_a_case_are_refused(tmp_path: Path) -> None:
    tables = [classified(CASES, ["0", "1"], seed=seed) for seed in range(3)]
    ours, theirs = _runs(tmp_path / "a", *tables[:2]), _runs(tmp_path / "b", tables[2])
    with pytest.raises(InputError, match="a comparison takes one prediction per case"):
        compare_on_shared_cases(ours, theirs, measures_of(ours[0].predictions))
