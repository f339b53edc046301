"""Planted shortcuts are flagged; clean cohorts, also imbalanced ones, are not; small ones are not judged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from audited_runs import write_audited_run
from hand_written import survived, write_run

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.permutation import holm
from e2e_abmilx.main import main
from e2e_abmilx.reports import make_report
from e2e_abmilx.reports.audit import Audit, audit_shortcuts
from e2e_abmilx.reports.audit_questions import COLOURS, EMBEDDINGS
from e2e_abmilx.runs.read import Run


def _audit(*runs: Run) -> Audit:
    return audit_shortcuts(make_report(runs))


def _flagged(audit: Audit) -> set[tuple[str, str]]:
    return {(one.question.source, one.question.target) for one in audit.findings if one.flagged}


def test_each_planted_shortcut_is_flagged(tmp_path: Path) -> None:
    audit = _audit(write_audited_run(tmp_path / "a", confounded=0.85, leak=2, tint=15))
    assert _flagged(audit) == {("site", "label"), (COLOURS, "label"), (EMBEDDINGS, "site")}
    assert [(one.question.source, one.question.target) for one in audit.findings] == [
        ("site", "label"), ("scanner", "label"), (COLOURS, "label"), (EMBEDDINGS, "site"), (EMBEDDINGS, "scanner"),
    ]  # fmt: skip
    assert not audit.notes
    site = audit.findings[0]
    assert site.association is not None
    assert site.association.estimate.low > 0.75
    assert site.own > 0.95
    assert np.isnan(audit.findings[3].own)
    raw = [one.association.p_value for one in audit.findings if one.association]
    assert [one.p_value for one in audit.findings] == holm(raw)


@pytest.mark.slow  # many cohorts
def test_clean_and_imbalanced_cohorts_are_not_flagged(tmp_path: Path) -> None:
    report = make_report([write_audited_run(tmp_path / "measured")])

    def flagged(name: str, seed: int, confounded: float) -> set[tuple[str, str]]:
        run = write_audited_run(tmp_path / f"{name}-{seed}", seed=seed, confounded=confounded)
        return _flagged(audit_shortcuts(report._replace(summary=report.summary._replace(runs=[run]))))

    clean = [flagged("clean", seed, 0) for seed in range(10)]
    assert sum(map(bool, clean)) <= 2  # at most 0.5 is expected, and P(more than 2) is 1 %
    imbalanced = [flagged("imbalanced", seed, 0.5) for seed in range(4)]
    assert sum((EMBEDDINGS, "site") in one for one in imbalanced) <= 1
    assert sum(("site", "label") in one for one in imbalanced) >= 3


def test_small_cohorts_are_not_judged(tmp_path: Path) -> None:
    audit = _audit(write_audited_run(tmp_path / "a", cases=28, confounded=1, leak=5))
    assert len(audit.findings) == 4
    for one in audit.findings:
        assert one.reason == "28 cases; at least 30 are needed, one per patient"
        assert one.association is None
        assert not one.flagged


def test_folds_are_audited_together_and_seeds_once(tmp_path: Path) -> None:
    one = write_audited_run(tmp_path / "a", leak=3)
    whole, embeddings = _own_table(one), dict(np.load(one.folder / "embeddings.npz"))
    folds = []
    for fold in range(2):
        own = whole.index // 2 % 2 == fold  # both classes
        splits = pd.DataFrame({"case": whole["case"], "split": np.where(own, "test", "train")})
        folds.append(write_run(tmp_path / f"fold-{fold}", whole[own], splits=splits, data={**one.data, "fold": fold}))
        turn = np.linalg.qr(np.random.default_rng(fold).normal(size=(16, 16)))[0]  # another model's space
        np.savez(
            folds[-1].folder / "embeddings.npz",
            case=whole["case"][own].to_numpy(str),
            embedding=embeddings["embedding"][own] @ turn,
        )
    found = _audit(*folds)
    assert [one.question.cases for one in found.findings] == [80] * 4
    assert (EMBEDDINGS, "site") in _flagged(found)
    seeds = _audit(one, write_run(tmp_path / "again", whole, data=one.data))
    assert [one.question.cases for one in seeds.findings] == [80] * 4
    assert any("again, because it has no embeddings.npz" in note for note in seeds.notes)


def _own_table(run: Run) -> pd.DataFrame:
    return run.predictions.reset_index().drop(columns="threshold")


def test_survival_is_measured_by_the_c_index(tmp_path: Path) -> None:
    cases = [f"TCGA-{'A1' if number % 2 else 'B2'}-{number:04d}" for number in range(60)]
    table = survived(cases, seed=0)
    table["time"] = np.where(np.arange(60) % 2, 5, 50) + np.arange(60) / 10
    table["event"] = 1
    table[["case", "time", "event"]].to_csv(tmp_path / "labels.csv", index=False)
    run = write_run(tmp_path / "run", table, data={"labels": str(tmp_path / "labels.csv"), "target": "survival"})
    (found,) = _audit(run).findings
    assert (found.question.source, found.question.target, found.measure) == ("TCGA site", "survival", "c_index")
    assert found.flagged


def test_a_group_must_be_in_the_table(tmp_path: Path) -> None:
    run = write_audited_run(tmp_path / "a")
    with pytest.raises(InputError, match="no column 'hospitl'"):
        audit_shortcuts(make_report([run]), ["hospitl"])


def test_a_run_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    rows = []
    (tmp_path / "features").mkdir()
    for number in range(90):
        label = number % 2
        site = label if draw.random() < 0.6 else 1 - label
        features = draw.normal(size=(4, 8)) + 3 * np.eye(8)[site] + 3 * np.eye(8)[2 + label]
        torch.save(torch.from_numpy(features.astype(np.float32)), tmp_path / f"features/s{number}.pt")
        split = "train" if number < 20 else "val" if number < 30 else "test"
        rows.append({"slide": f"s{number}", "label": label, "site": ["Bonn", "Kyoto"][site], "split": split})
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    head = {"class_path": "MeanPool"}
    encoder = {"class_path": "Precomputed", "init_args": {"num_features": 8}}
    model = {"num_outputs": 2, "encoder": encoder, "head": head}
    data = {"features": str(tmp_path / "features"), "labels": str(tmp_path / "labels.csv"), "num_workers": 0}
    trainer = {"default_root_dir": str(tmp_path / "run"), "max_epochs": 1, "accelerator": "cpu"}
    settings = {
        "model": {"class_path": "ClassificationTask", "init_args": model},
        "data": {"class_path": "FeatureDataModule", "init_args": data},
        "trainer": {**trainer, "enable_progress_bar": False, "log_every_n_steps": 1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    main(["fit", "--config", str(tmp_path / "config.yaml")])
    capsys.readouterr()
    main(["report", "--runs", str(tmp_path / "run"), "--html", "true"])
    text = capsys.readouterr().out
    assert "! the embeddings tell the values of site apart, within classes of the truth: AUC 1.00" in text
    assert "not audited: colours, because the run has no cache of slides (data.cache)" in text
    table = pd.read_csv(tmp_path / "run/shortcuts.csv", index_col=["source", "target"])
    assert table.loc[(EMBEDDINGS, "site"), "flagged"] == 1
    assert "embeddings tell the values of site apart" in (tmp_path / "run/report.html").read_text()
