from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_written import survived, write_run

from e2e_abmilx.evaluation.brier import Censoring, case_brier_scores
from e2e_abmilx.reports import make_report
from e2e_abmilx.reports.brier import add_own_brier_scores, followed_horizon

CASES = [f"case-{number:03d}" for number in range(60)]


def test_brier_scores_of_runs_that_predict_survival(tmp_path: Path) -> None:
    """Up to the horizon of both runs, with the censoring of the training cases of each."""
    edges, runs = ([10.0, 25.0, 40.0], [12.5, 20.0, 38.0]), []
    for number, bins in enumerate(edges):
        test = survived(CASES[30 * number : 30 * number + 30], seed=number)
        survival = np.random.default_rng(number).uniform(0.7, 1, (30, 3)).cumprod(axis=1)
        columns = {f"survival_{edge}": survival[:, place] for place, edge in enumerate(bins)}
        train = survived([f"train-{place}" for place in range(80 + number)], seed=9)
        cohort = pd.concat([test.assign(split="test"), train.assign(split="train")])
        splits = cohort[["case", "split", "time", "event"]]
        runs.append((write_run(tmp_path / str(number), test.assign(**columns), splits=splits), survival, train))
    found = make_report([run for run, *_ in runs])
    scores = []
    for (run, survival, train), bins in zip(runs, edges, strict=True):
        scores.append(
            case_brier_scores(
                survival,
                bins,
                run.predictions["time"],
                run.predictions["event"],
                censoring=Censoring(train["time"], train["event"]),
                horizon=38.0,
            ).mean()
        )
    assert [values["brier"].point for values in found.summary.per_run] == pytest.approx(scores)
    assert found.summary.pooled is not None
    assert found.summary.pooled["brier"].point == pytest.approx(np.mean(scores))  # of equally many cases
    assert "IBS: from 0 to 38 months" in found.notes[-1]


def test_no_brier_score_if_one_run_lacks_survival(tmp_path: Path) -> None:
    table = survived(CASES, seed=0)
    splits = table.assign(split="test")[["case", "split", "time", "event"]]
    one = write_run(tmp_path / "a", table.assign(survival_10=0.5), splits=splits)
    two = write_run(tmp_path / "b", table, splits=splits)
    assert set(make_report([one], [two]).measures) == {"c_index"}


def test_own_censoring_weights_a_cohort_without_training_cases() -> None:
    table = survived(CASES, seed=0).set_index("case").assign(survival_10=0.8, survival_30=0.5)
    scored = add_own_brier_scores(table, 30.0)
    wanted = case_brier_scores(
        table[["survival_10", "survival_30"]],
        [10.0, 30.0],
        table["time"],
        table["event"],
        censoring=Censoring(table["time"], table["event"]),
        horizon=30.0,
    )
    np.testing.assert_allclose(scored["brier"], wanted)


def test_the_horizon_is_the_last_edge_with_follow_up() -> None:
    table = pd.DataFrame({"time": [5.0, 12.0, 20.0], "event": [1, 1, 0], "survival_10": 0.8, "survival_25": 0.5})
    assert followed_horizon(table) == 10
    assert followed_horizon(table.assign(event=1)) == 25  # all have died, and nobody is lost
    assert followed_horizon(table.assign(time=5.0, event=0)) is None
    assert followed_horizon(table[["time", "event"]]) is None
