import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hand_written import classified, regressed, survived, write_run
from torchmetrics.functional.classification import multiclass_cohen_kappa

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.estimators import Auroc
from e2e_abmilx.reports.models import markdown, tabulate_models, write_models
from e2e_abmilx.runs.read import Run

CASES = [f"case-{number:03d}" for number in range(60)]
NOISE = {"good": 0.2, "bad": 1.0}


def _folds(folder: Path, table: pd.DataFrame) -> list[Run]:
    return [write_run(folder / f"fold-{fold}", table.iloc[fold::3]) for fold in range(3)]


def _record(run: Run, *, encoder: int, head: int, seconds: float, holding: float) -> None:
    content = {"parameters": {"encoder": encoder, "head": head}, "fit": {"seconds": seconds, "ended": "then"}}
    (run.folder / "run.yaml").write_text(yaml.safe_dump(content))
    (run.folder / "metrics.csv").write_text(f"epoch,test/auc,test/fraction_holding_95\n1,0.5,{holding}\n")


def _slow_mean(weight: np.ndarray, tables: list[pd.DataFrame]) -> float:
    """Return the mean over runs of the AUC of rows repeated as often as their case was drawn."""
    drawn = dict(zip(CASES, weight, strict=True))
    values = []
    for table in tables:
        rows = table.loc[table.index.repeat([drawn[case] for case in table["case"]])]
        if rows["label"].nunique() == 2:
            one, zero = (rows.loc[rows["label"] == name, "probability_1"].to_numpy() for name in "10")
            values.append(np.mean([(a > b) + (a == b) / 2 for a in one for b in zero]))
    return float(np.mean(values))


def test_intervals_resample_a_case_with_all_its_predictions(tmp_path: Path) -> None:
    """Two seeds of three folds, against a slow loop over the same resamples."""
    seeds = [classified(CASES, ["0", "1"], seed=seed) for seed in (1, 2)]
    runs = [run for number, table in enumerate(seeds) for run in _folds(tmp_path / str(number), table)]
    found = tabulate_models({"only": runs}).models.iloc[0]
    tables = [table.iloc[fold::3] for table in seeds for fold in range(3)]
    generator = np.random.default_rng(0)
    drawn = [_slow_mean(np.bincount(generator.integers(60, size=60), minlength=60), tables) for _ in range(1000)]
    assert found["mean"] == pytest.approx(_slow_mean(np.ones(60, int), tables))
    assert (found["low"], found["high"]) == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    each = [Auroc(table["probability_1"], table["label"].astype(int))(np.ones(20, int)) for table in tables]
    assert (found["std"], found["runs"]) == pytest.approx((np.std(each, ddof=1), 6))
    assert math.isnan(found["difference"])


def test_models_are_compared_with_the_first(tmp_path: Path) -> None:
    good, bad = (classified(CASES, ["0", "1"], seed=3, skill=skill) for skill in (4, 0))
    table = tabulate_models(
        {"good": _folds(tmp_path / "a", good), "bad": _folds(tmp_path / "b", bad), "same": _folds(tmp_path / "c", good)}
    )
    worse, same = table.models.iloc[1], table.models.iloc[2]
    assert worse["difference_high"] < 0
    assert worse["p_value"] < 0.01
    assert same["difference"] == 0
    assert same["p_value"] == 1
    assert table.cases == 60


def test_survival_is_measured_by_the_c_index(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", survived(CASES, seed=0))
    table = tabulate_models({"only": [run]})
    assert table.measure.title == "C-index"
    assert math.isnan(table.models["std"][0])


def test_a_regression_is_measured_by_r2(tmp_path: Path) -> None:
    runs = {name: [write_run(tmp_path / name, regressed(CASES, seed=0, noise=noise))] for name, noise in NOISE.items()}
    table = tabulate_models(runs)
    assert table.measure.title == "R²"
    assert table.models["difference"][1] < 0
    assert table.models["p_value"][1] < 0.01


def test_the_measure_can_be_chosen(tmp_path: Path) -> None:
    table = classified(CASES, ["0", "1", "2"], seed=1)
    run = write_run(tmp_path / "run", table)
    probability = torch.from_numpy(table[["probability_0", "probability_1", "probability_2"]].to_numpy())
    label = torch.tensor([int(name) for name in table["label"]])
    found = tabulate_models({"a|b": [run]}, "qwk")
    expected = multiclass_cohen_kappa(probability, label, num_classes=3, weights="quadratic").item()
    assert found.models.iloc[0]["mean"] == pytest.approx(expected, abs=1e-6)
    head, _, row, _, meaning = markdown(found).splitlines()
    assert "QWK, mean ± std" in head
    assert meaning.startswith("QWK: quadratic weighted")
    assert row.startswith(r"| a\|b | 1 |")
    write_models(found, tmp_path / "models.csv")
    assert pd.read_csv(tmp_path / "models.csv")["measure"].tolist() == ["qwk"]
    assert tabulate_models({"a": [run]}).models["measure"].tolist() == ["auc"]


def test_a_measure_that_the_runs_lack_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", regressed(CASES, seed=0))
    with pytest.raises(InputError, match="measure is auc, but these runs have r2, pearson, spearman, mae"):
        tabulate_models({"only": [run]}, "auc")


def test_the_table_shows_what_runs_recorded(tmp_path: Path) -> None:
    known = _folds(tmp_path / "known", classified(CASES, ["0", "1"], seed=3))
    for fold, run in enumerate(known):
        _record(run, encoder=2_780_000, head=50_000, seconds=60.0 * (fold + 1), holding=0.25 * (fold + 1))
    unknown = _folds(tmp_path / "unknown", classified(CASES, ["0", "1"], seed=4))
    table = tabulate_models({"known": known, "unknown": unknown})
    head, rule, first, second, _, meaning = markdown(table).splitlines()
    assert head.count("|") == rule.count("|") == first.count("|") == second.count("|")
    assert "| 2.78 M + 0.05 M | 2.0 | 0.500 |" in first
    assert "| – + – | – | – |" in second
    assert "60 cases resampled" in meaning
    write_models(table, tmp_path / "models.csv")
    written = pd.read_csv(tmp_path / "models.csv")
    assert written["model"].tolist() == ["known", "unknown"]
    assert written["head_parameters"].tolist() == pytest.approx([50_000, math.nan], nan_ok=True)
    assert written["mean"].tolist() == table.models["mean"].tolist()
    assert written["p_value"].isna().tolist() == [True, False]


def test_different_cases_or_labels_are_refused(tmp_path: Path) -> None:
    whole = classified(CASES, ["0", "1"], seed=3)
    part = write_run(tmp_path / "part", whole.iloc[:-1])
    other = write_run(tmp_path / "other", whole.assign(label=np.roll(whole["label"], 1)))
    run = write_run(tmp_path / "whole", whole)
    with pytest.raises(InputError, match=r"part is tested on 59 cases and whole on 60.*the same splits"):
        tabulate_models({"whole": [run], "part": [part]})
    with pytest.raises(InputError, match="differ in their label"):
        tabulate_models({"whole": [run], "other": [other]})
