from pathlib import Path

import numpy as np
import pytest
from hand_written import classified, multi_labelled, regressed, survived, write_run

from e2e_abmilx.evaluation.estimators import Estimator
from e2e_abmilx.reports.cases import case_table, find_heatmaps, find_views
from e2e_abmilx.reports.measures import C_INDEX

CASES = [f"case-{number:03d}" for number in range(60)]


def test_correctness_of_survival_is_the_c_index_of_the_pairs_of_a_case(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", survived(CASES, seed=0))
    found = case_table([run])["correctness"]
    assert found.is_monotonic_increasing
    predictions = run.predictions
    for case in CASES[:10]:
        right = pairs = 0
        for other in set(CASES) - {case}:
            pair: Estimator = C_INDEX.estimator(predictions.loc[[case, other]])
            fraction = pair(np.ones(2, np.int64))
            right, pairs = right + (0 if np.isnan(fraction) else fraction), pairs + (not np.isnan(fraction))
        assert found[case] == pytest.approx(right / pairs)


def test_correctness_of_a_class_is_the_probability_of_the_true_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", classified(CASES, ["a", "b", "c"], seed=0))
    found = case_table([run])
    assert found["correctness"].is_monotonic_increasing
    for case, row in found.iterrows():
        assert row["correctness"] == row[f"probability_{row['label']}"]
        assert row[f"probability_{row['predicted']}"] == max(row[f"probability_{name}"] for name in "abc")
        assert run.predictions.at[case, "label"] == row["label"]


def test_correctness_of_a_value_is_the_fraction_of_larger_errors(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", regressed(CASES, seed=0))
    found = case_table([run])
    error = (found["predicted_value"] - found["value"]).abs()
    assert found["absolute_error"].equals(error)
    assert error.is_monotonic_decreasing
    assert found["correctness"].tolist() == pytest.approx([(error >= one).mean() for one in error])


def test_correctness_of_several_labels_leaves_out_unknown_ones(tmp_path: Path) -> None:
    classes = ["ER", "PR", "HER2"]
    run = write_run(tmp_path / "run", multi_labelled(CASES, classes, seed=0, skill=3.0))
    row = case_table([run]).loc["case-000"]
    parts = [
        row[f"probability_{name}"] if row[f"label_{name}"] else 1 - row[f"probability_{name}"]
        for name in classes
        if not np.isnan(row[f"label_{name}"])
    ]
    assert row["correctness"] == pytest.approx(np.mean(parts))
    called = [name for name in classes if row[f"probability_{name}"] >= 0.5]
    assert row["predicted"] == (", ".join(called) or "none")


def test_heatmaps_are_found_by_slide(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", survived(CASES, seed=0))
    assert find_heatmaps(run) == {}
    overlay = run.folder / "heatmaps/slide-a/overlay.png"
    overlay.parent.mkdir(parents=True)
    overlay.touch()
    (run.folder / "heatmaps/slide-b").mkdir()
    assert find_heatmaps(run) == {"slide-a": overlay}


def test_a_copy_for_the_browser_that_cannot_be_read_has_no_cases(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", classified(CASES, ["a", "b"], seed=0))
    folder = run.folder / "view"
    folder.mkdir()
    (folder / "cases.json").write_text('{"case-000": 3, "case-001": "javascript:alert(1)"}')
    assert find_views(run) == {}
    (folder / "index.html").write_text("")
    assert find_views(run) == {"case-000": 3}
    for content in ("[1]", "{", ""):
        (folder / "cases.json").write_text(content)
        assert find_views(run) == {}
