import statistics
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hand_written import classified, survived, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import bootstrap
from e2e_abmilx.evaluation.estimators import Auroc
from e2e_abmilx.reports.measures import measures_of
from e2e_abmilx.reports.summary import estimate, pool, summarise
from e2e_abmilx.runs.read import Run

CASES = [f"case-{number:03d}" for number in range(40)]


def _folds(folder: Path, parts: list[list[str]]) -> list[Run]:
    return [
        write_run(folder / f"fold-{number}", classified(part, ["0", "1"], seed=number))
        for number, part in enumerate(parts)
    ]


def test_runs_spread_and_pooled_cases(tmp_path: Path) -> None:
    runs = _folds(tmp_path, [CASES[:10], CASES[10:25], CASES[25:]])
    summary = summarise(runs, measures_of(runs[0].predictions))
    aucs = []
    for run, values in zip(runs, summary.per_run, strict=True):
        table = run.predictions
        auc = Auroc(table["probability_1"], table["label"].astype(int))
        aucs.append(auc(np.ones(len(table), dtype=np.int64)))
        assert values["auc"].point == pytest.approx(aucs[-1])
    assert summary.spread["auc"] == pytest.approx((statistics.mean(aucs), statistics.stdev(aucs), 3))
    probability = [one for run in runs for one in run.predictions["probability_1"]]
    label = [int(one) for run in runs for one in run.predictions["label"]]
    assert summary.pooled is not None
    assert summary.pooled["auc"] == pytest.approx(bootstrap(Auroc(probability, label), CASES))


@settings(deadline=None, max_examples=10)
@given(cuts=st.sets(st.integers(1, 39), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_pooled_measures_do_not_depend_on_the_folds(
    cuts: set[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    whole = survived(CASES, seed=seed).sample(frac=1, random_state=seed)
    bounds = [0, *sorted(cuts), 40]
    parts = [whole.iloc[start:end] for start, end in pairwise(bounds)]
    runs = [write_run(folder / f"fold-{number}", part) for number, part in enumerate(parts)]
    measures = measures_of(runs[0].predictions)
    one, many = (estimate(pool(some), measures) for some in ([write_run(folder / "whole", whole)], runs))
    assert many["c_index"] == pytest.approx(one["c_index"])


def test_seeds_of_one_fold_are_not_pooled(tmp_path: Path) -> None:
    data = {"fold": 1}
    runs = [
        write_run(tmp_path / f"seed-{seed}", classified(CASES, ["0", "1"], seed=seed), data=data) for seed in range(3)
    ]
    summary = summarise(runs, measures_of(runs[0].predictions))
    assert summary.pooled is None
    assert "case case-000 is tested by" in summary.overlap
    assert summary.spread["auc"].std > 0


@pytest.mark.parametrize(("splits", "refused"), [(None, True), ("splits", False)])
def test_folds_of_one_cross_validation_cannot_test_a_case_twice(
    splits: str | None, refused: bool, tmp_path: Path
) -> None:
    """Folds from a split file may: some files draw new test cases for each fold."""
    runs = [
        write_run(
            tmp_path / f"fold-{fold}",
            classified(CASES[15 * fold : 15 * fold + 20], ["0", "1"], seed=fold),
            data={"fold": fold, "splits": splits},
        )
        for fold in range(2)
    ]
    measures = measures_of(runs[0].predictions)
    if refused:
        with pytest.raises(InputError, match=r"case case-015 .* folds 0 and 1 of one cross-validation"):
            summarise(runs, measures)
    else:
        assert summarise(runs, measures).pooled is None


def test_a_run_without_a_class_is_left_out_of_the_mean_auc(tmp_path: Path) -> None:
    table = classified(CASES, ["0", "1"], seed=0)
    parts = [table[table["label"] == "0"][:5], table[20:30], table[30:]]
    runs = [write_run(tmp_path / str(number), part) for number, part in enumerate(parts)]
    summary = summarise(runs, measures_of(table.assign(threshold=np.nan)))
    assert np.isnan(summary.per_run[0]["auc"].point)
    assert summary.spread["auc"].runs == 2
    assert summary.spread["accuracy"].runs == 3
