"""The command, on slides with and without a cache, on features, on survival and on folds."""

import json
from pathlib import Path

import pytest
from plans import write_features
from slide_runs import message_of, write_slide_config

from e2e_abmilx.main import main


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("cached", [True, False])
def test_a_plan_of_slides_writes_its_json_and_nothing_else(
    tmp_path: Path, cohort: Path, stores: Path, capsys: pytest.CaptureFixture[str], cached: bool
) -> None:
    config = write_slide_config(tmp_path, cohort, stores if cached else tmp_path / "cache")
    before = [*_files(tmp_path), *_files(cohort)]
    words = ["--probe", "--gpu-memory", "24", "--json", str(tmp_path / "plan.json"), "--data.patch_size=64"]
    main(["plan", "--config", str(config), *words, f"--data.slides={cohort}/slides"])
    shown = capsys.readouterr().out
    assert "on this machine" in shown
    assert ("needed" in shown) == cached
    assert {*_files(tmp_path), *_files(cohort)} == {*before, tmp_path / "plan.json"}
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["time"]["real"] == cached
    assert plan["time"]["hours"] > 0
    assert plan["training"]["steps"] == 6
    assert plan["memory"]["gpu"]["largest_patches_per_bag"] > 100


def test_a_plan_of_survival_from_features_by_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in write_features(tmp_path, cases=40) if word not in ("--model=ClassificationTask",)]
    survival = ["--model=SurvivalTask", "--data.target=survival", "--data.time_bins=2", "--data.fold=0"]
    main(["plan", *survival[:1], *words, *survival[1:], "--data.columns.split=null", "--probe"])
    shown = capsys.readouterr().out
    assert "C-index, test" in shown
    assert "C-index, all folds" in shown
    assert "40 cases, 20 events" in shown


def test_faults_are_those_of_a_fit(tmp_path: Path) -> None:
    words = write_features(tmp_path)
    assert "absent.csv" in message_of(["plan", *words, "--data.labels=absent.csv"])
