"""Predictions as numbers and as words."""

import math
from pathlib import Path

import pandas as pd
import pytest
from hand_written import classified, multi_labelled, regressed, survived

from e2e_abmilx.errors import InputError
from e2e_abmilx.viewer.predictions import facts_of, prediction_in_words, read_rows, survival_of, task_of, truth_in_words

CASES = ["a", "b", "c", "d"]


def _write(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    table.to_csv(path, index=False)
    return read_rows(path)


def _words(rows: pd.DataFrame, case: str) -> tuple[str, str, str]:
    task, row = task_of(rows, {}), {str(name): value for name, value in rows.loc[case].items()}
    return task, truth_in_words(row, task), prediction_in_words(row, task)


def test_each_task_in_words(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    classes = pd.DataFrame({"case": ["a"], "label": ["tumour"], "probability_tumour": 0.07, "probability_normal": 0.93})
    assert _words(_write(path, classes), "a") == ("classification", "tumour", "normal 0.93")
    labels = pd.DataFrame(
        {"case": ["a"], "label_ER": [1], "label_PR": [""], "probability_ER": 0.8, "probability_PR": 0.3}
    )
    assert _words(_write(path, labels), "a") == ("multi_label", "ER, PR?", "ER")
    survival = pd.DataFrame({"case": ["a", "b"], "time": [30.1, 7], "event": [1, 0], "risk": [1.25, -2]})
    assert _words(_write(path, survival), "a") == ("survival", "event at 30.1 months", "risk 1.25")
    assert _words(_write(path, survival), "b") == ("survival", "censored at 7 months", "risk -2")
    value = pd.DataFrame({"case": ["a"], "value": [17], "predicted_value": [18.25]})
    assert _words(_write(path, value), "a") == ("regression", "17", "18.25")


def test_an_unknown_truth_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    tables = [
        pd.DataFrame({"case": ["a"], "probability_x": 0.6, "probability_y": 0.4}),
        pd.DataFrame({"case": ["a"], "label": [""], "probability_x": 0.6, "probability_y": 0.4}),
        pd.DataFrame({"case": ["a"], "label_x": [""], "label_y": [""], "probability_x": 0.6, "probability_y": 0.9}),
        pd.DataFrame({"case": ["a"], "time": [""], "event": [""], "risk": [0.3]}),
        pd.DataFrame({"case": ["a"], "predicted_value": [0.3]}),
    ]
    tasks = [_words(_write(path, table), "a") for table in tables]
    assert [task for task, *_ in tasks] == ["classification", "classification", "multi_label", "survival", "regression"]
    assert {truth for _, truth, _ in tasks} == {""}


def test_several_labels_are_recognised_without_their_truth(tmp_path: Path) -> None:
    table = pd.DataFrame({"case": CASES, "probability_x": [0.1, 0.9, 0.4, 0.5], "probability_y": [0.9, 0.9, 0.2, 0.1]})
    assert task_of(_write(tmp_path / "p.csv", table), {}) == "multi_label"
    one = table.assign(probability_y=1 - table["probability_x"])
    rows = _write(tmp_path / "p.csv", one)
    assert task_of(rows, {}) == "classification"
    assert task_of(rows, {"data": {"init_args": {"target": "multi_label"}}}) == "multi_label"


def test_facts_are_in_order_and_state_the_spread_of_an_ensemble(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"case": ["a"], "label": ["y"], "probability_x": 0.75, "probability_y": 0.25, "std_probability_x": 0.05,
         "std_probability_y": 0.05, "predicted": "x", "threshold": 0.4}
    )  # fmt: skip
    rows = _write(tmp_path / "p.csv", table)
    row = {str(name): value for name, value in rows.loc["a"].items()} | {"correctness": 0.25}
    assert facts_of(row, "classification") == [
        ["label", "y"], ["probability of x", "0.750 ± 0.05 (std of the models)"],
        ["probability of y", "0.250 ± 0.05 (std of the models)"], ["predicted", "x"], ["threshold of y", "0.4, not reached"],
        ["probability of the label", "0.250"],
    ]  # fmt: skip


def test_the_curve_of_a_survival_model(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "case": ["a", "b"],
            "time": [30, ""],
            "event": [1, ""],
            "risk": 1.0,
            "survival_12": 0.9,
            "survival_24.5": [0.5, 0.6],
        }
    )
    rows = _write(tmp_path / "p.csv", table)
    curves = [survival_of({str(name): value for name, value in rows.loc[case].items()}) for case in "ab"]
    assert curves[0] == {"months": [12.0, 24.5], "probability": [0.9, 0.5], "time": 30.0, "event": 1}
    assert curves[1] == {"months": [12.0, 24.5], "probability": [0.9, 0.6], "time": None, "event": None}
    assert survival_of({"risk": 1.0, "time": 3.0, "event": 1.0}) is None
    damaged = {"risk": 1.0, "time": math.inf, "event": 1.0, "survival_12": math.nan, "survival_24": 0.5}
    assert survival_of(damaged) == {"months": [24.0], "probability": [0.5], "time": None, "event": 1}


@pytest.mark.parametrize(
    "make",
    [
        lambda c: classified(c, ["x", "y"], seed=0),
        lambda c: survived(c, seed=0),
        lambda c: regressed(c, seed=0),
        lambda c: multi_labelled(c, ["x", "y"], seed=0),
    ],
)
def test_tables_that_a_test_writes_are_read(tmp_path: Path, make) -> None:
    assert list(_write(tmp_path / "p.csv", make(CASES)).index) == CASES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing; name the folder of a run"),
        ("", "cannot be read as a table"),
        ("a,b\n1,2\n", "has the columns a, b; the viewer needs case"),
        ("case,risk\n", "has no case"),
        ("case,risk\na,1\na,2\n", "two rows of case 'a'"),
        ("case,risk\na,high\n", "has text where case 'a' needs a number"),
    ],
)
def test_what_is_no_table_of_predictions_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "predictions.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_rows(path)
