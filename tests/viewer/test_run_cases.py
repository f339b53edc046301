"""The cases of a run."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_written import classified, multi_labelled, regressed, survived, write_run
from viewed_runs import WEIRD

from e2e_abmilx.errors import InputError
from e2e_abmilx.heatmaps.case_map import CaseMap, write_case_map
from e2e_abmilx.reports.cases import case_table
from e2e_abmilx.viewer.run_cases import RunCases, find_again

CASES = [f"case {number}" for number in range(20)]


@pytest.mark.parametrize(
    "predictions",
    [
        classified(CASES, ["x", "y", "z"], seed=0),
        survived(CASES, seed=0),
        regressed(CASES, seed=0),
        multi_labelled(CASES, ["x", "y"], seed=0),
    ],
    ids=["classification", "survival", "regression", "multi_label"],
)
def test_the_most_wrong_come_first_as_in_a_report(
    tmp_path: Path, predictions: pd.DataFrame, request: pytest.FixtureRequest
) -> None:
    run = write_run(tmp_path / "run", predictions)
    cases = RunCases.read(run.folder)
    wanted = case_table([run])["correctness"]
    assert cases.task == request.node.callspec.id
    assert sorted(cases.names) == sorted(CASES)
    found = cases.table["correctness"]
    assert np.allclose(found.reindex(wanted.index), wanted, equal_nan=True)
    known = found.dropna().to_numpy()
    assert (np.diff(known) >= 0).all()


def test_unlabelled_cases_come_last(tmp_path: Path) -> None:
    table = classified(CASES, ["x", "y"], seed=0)
    table.loc[3:10, "label"] = ""
    table.to_csv(tmp_path / "predictions.csv", index=False)
    cases = RunCases.read(tmp_path)
    assert cases.names[-8:] == CASES[3:11]
    assert cases.table["correctness"].isna().tolist() == [False] * 12 + [True] * 8
    assert cases.slides == {}
    table.drop(columns="label").to_csv(tmp_path / "predictions.csv", index=False)
    assert RunCases.read(tmp_path).names == CASES


def test_weird_names_keep_their_signs(tmp_path: Path) -> None:
    cases = RunCases.read(write_run(tmp_path / "run", classified(WEIRD, ["x", "y"], seed=0)).folder)
    assert sorted(cases.names) == sorted(WEIRD)
    for name in WEIRD:
        write_case_map(tmp_path / "run", CaseMap(name, None, ()))
        assert cases.has_map(name)
        assert cases.read_map(name) == (CaseMap(name, None, ()), None)
        assert cases.row(name)["probability_x"] >= 0


def test_a_run_without_attention_names_the_command(tmp_path: Path) -> None:
    cases = RunCases.read(write_run(tmp_path / "run", classified(CASES, ["x", "y"], seed=0)).folder)
    found, problem = cases.read_map("case 1")
    assert found is None
    assert f"`e2e-abmilx test --config {tmp_path}/run/fit.yaml --ckpt_path {tmp_path}/run/best.ckpt`" in problem


def test_attention_of_another_prediction_is_not_shown(tmp_path: Path) -> None:
    """Whatever wrote predictions.csv anew and left attention/ as it was, such as a test that was killed in between."""
    table = classified(CASES, ["x", "y"], seed=0)
    run = write_run(tmp_path / "run", table)
    predicted = {name: table[name][1] for name in ("probability_x", "probability_y")}
    write_case_map(run.folder, CaseMap("case 1", None, (), predicted))
    assert RunCases.read(run.folder).read_map("case 1")[1] is None
    classified(CASES, ["x", "y"], seed=1).to_csv(run.folder / "predictions.csv", index=False)
    found, problem = RunCases.read(run.folder).read_map("case 1")
    assert found is None
    assert "is of another prediction than predictions.csv: probability_x of case 'case 1' is" in problem
    assert f"`e2e-abmilx test --config {tmp_path}/run/fit.yaml" in problem


def test_a_relative_path_is_that_of_the_run_and_not_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for work in ("one", "two"):
        (tmp_path / work / "demo").mkdir(parents=True)
    (tmp_path / "one/runs/demo").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "two")
    assert find_again(Path("demo"), tmp_path / "one/runs/demo") == tmp_path / "one/demo"
    assert find_again(Path("demo"), tmp_path) == tmp_path / "two/demo"  # of a run that was moved


def test_a_later_test_that_stored_attention_is_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", classified(CASES, ["x", "y"], seed=0))
    later = classified(CASES, ["x", "y"], seed=1)
    (run.folder / "test").mkdir()
    later.to_csv(run.folder / "test" / "predictions.csv", index=False)
    assert RunCases.read(run.folder).tested == run.folder
    write_case_map(run.folder / "test", CaseMap("case 1", None, ()))
    cases = RunCases.read(run.folder)
    assert (cases.folder, cases.tested) == (run.folder, run.folder / "test")
    assert cases.row("case 1")["probability_x"] == pytest.approx(later["probability_x"][1])
    assert cases.has_map("case 1")
    assert cases.notes == [
        f"Predictions and attention are those of {run.folder}/test; the run itself has stored no attention."
    ]
    write_case_map(run.folder, CaseMap("case 1", None, ()))
    cases = RunCases.read(run.folder)
    assert (cases.tested, cases.notes) == (run.folder, [])


def test_an_ensemble_says_whose_attention_is_shown(tmp_path: Path) -> None:
    table = classified(CASES, ["x", "y"], seed=0).assign(std_probability_x=0.1)
    table.to_csv(tmp_path / "predictions.csv", index=False)
    assert "stored attention is that of the first model" in RunCases.read(tmp_path).notes[0]


def test_the_working_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_run(tmp_path / "run", classified(CASES, ["x", "y"], seed=0)).folder)
    assert RunCases.read(Path(".")).folder == tmp_path / "run"


def test_a_cross_validation_names_its_folds(tmp_path: Path) -> None:
    for fold in (0, 1):
        write_run(tmp_path / f"fold-{fold}", classified(CASES, ["x", "y"], seed=fold))
    with pytest.raises(InputError, match=r"is a cross-validation; name one of its 2 folds, such as .*fold-0$"):
        RunCases.read(tmp_path)


def test_the_threshold_is_that_of_the_test(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", classified(CASES, ["x", "y"], seed=0), threshold=0.25)
    assert RunCases.read(run.folder).row("case 1")["threshold"] == 0.25


def test_the_label_table_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    (work / "data").mkdir(parents=True)
    pd.DataFrame({"case": ["case 1"] * 2, "slide": ["s", "t"], "label": "x"}).to_csv(
        work / "data/labels.csv", index=False
    )
    write_run(
        work / "runs/one",
        classified(CASES, ["x", "y"], seed=0),
        data={"labels": "data/labels.csv", "cache": "data/cache"},
    )
    monkeypatch.chdir(tmp_path)
    cases = RunCases.read(Path("work/runs/one"))
    assert cases.slides == {"case 1": ("s", "t")}
    assert find_again(Path("data/labels.csv"), cases.folder) == work / "data/labels.csv"
    shutil.rmtree(work / "data")
    assert RunCases.read(Path("work/runs/one")).slides == {}


def test_a_folder_without_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"predictions\.csv is missing"):
        RunCases.read(tmp_path)
