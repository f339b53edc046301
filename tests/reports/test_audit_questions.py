from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from audited_runs import write_audited_run
from hand_written import multi_labelled, regressed, write_run

from e2e_abmilx.evaluation.shortcuts import TooFewError, associate
from e2e_abmilx.reports.audit_questions import COLOURS, EMBEDDINGS, Question, ask
from e2e_abmilx.reports.audited import read_audited
from e2e_abmilx.runs.read import Run

CASES = [f"case-{number:03d}" for number in range(60)]
SITES = ["Bonn", "Kyoto"] * 30


def _ask(run: Run) -> list[Question]:
    return list(ask(read_audited([run], []), [run]))


def test_who_predicts_what(tmp_path: Path) -> None:
    questions = _ask(write_audited_run(tmp_path / "a", cases=40, tint=0))
    assert [one[:4] for one in questions] == [
        ("site", "label", 40, "auc"), ("scanner", "label", 40, "auc"), (COLOURS, "label", 40, "auc"),
        (EMBEDDINGS, "site", 40, ""), (EMBEDDINGS, "scanner", 40, ""),
    ]  # fmt: skip
    smooth, truth = questions[0].pose()
    assert smooth(truth.columns).shape == (40, 2)
    assert questions[3].pose()[1].columns.shape == (40, 3)


def test_each_of_several_labels_is_asked_of_its_known_cases(tmp_path: Path) -> None:
    table = multi_labelled(CASES, ["ER", "PR"], seed=0)
    labels = table[["case", "label_ER", "label_PR"]].set_axis(["case", "ER", "PR"], axis=1)
    labels["ER"] = pd.array([1, 0] * 28 + [None] * 4, "Int64")
    labels.assign(site=SITES).to_csv(tmp_path / "labels.csv", index=False)
    data = {"labels": str(tmp_path / "labels.csv"), "target": "multi_label", "classes": ["ER", "PR"]}
    first, second = _ask(write_run(tmp_path / "run", table, data=data))
    assert first[:4] == ("site", "ER", 56, "auc_ER")
    assert second[1:4:2] == ("PR", "auc_PR")
    assert associate(*first.pose()).estimate.point == 1  # every case of Bonn is positive


def test_values_have_strata_of_similar_cases(tmp_path: Path) -> None:
    table = regressed(CASES, seed=0)
    table[["case"]].assign(label=table["value"], site=SITES).to_csv(tmp_path / "labels.csv", index=False)
    data = {"labels": str(tmp_path / "labels.csv"), "target": "regression"}
    run = write_run(tmp_path / "run", table, data=data)
    # embeddings of the value do not tell sites apart that differ in value by chance
    embedding = np.stack([table["value"], np.random.default_rng(0).normal(size=60)], axis=1)
    np.savez(run.folder / "embeddings.npz", case=np.array(CASES), embedding=embedding.astype(np.float32))
    value, site = _ask(run)
    assert value[:4] == ("site", "value", 60, "spearman")
    assert value.pose()[1].measure == "spearman"
    assert len(set(site.pose()[1].stratum.tolist())) == 6


def test_a_constant_column_cannot_be_judged(tmp_path: Path) -> None:
    run = write_audited_run(tmp_path / "a", cases=40)
    table = pd.read_csv(tmp_path / "a/labels.csv").assign(site="Bonn")
    table.to_csv(tmp_path / "a/labels.csv", index=False)
    questions = _ask(run)
    for one in (questions[0], questions[2]):
        with pytest.raises(TooFewError, match="all 40 cases have the value Bonn"):
            one.pose()
