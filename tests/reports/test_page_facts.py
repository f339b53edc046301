from pathlib import Path

from hand_written import classified
from pages import RECORD, facts_of, make_page, write_fold

CASES = [f"case-{number:03d}" for number in range(60)]


def test_recorded_facts_are_shown(tmp_path: Path) -> None:
    runs = [
        write_fold(tmp_path / f"fold-{fold}", classified(CASES[fold::3], ["0", "1"], seed=fold), fold=fold)
        for fold in range(3)
    ]
    for run in runs[:2]:  # the third has no record
        (run.folder / "run.yaml").write_text(RECORD)
    page = make_page(tmp_path, runs)
    facts = facts_of(page)
    assert facts["fold"] == ["0", "1", "2"]
    assert facts["precision"] == ["bf16-mixed", "bf16-mixed", "–"]
    assert facts["best epoch, counted from 0"] == ["1", "1", "–"]
    assert facts["selected by"] == ["val/loss 0.6", "val/loss 0.6", "–"]
    assert facts["parameters of the encoder"] == ["2,782,784", "2,782,784", "–"]
    assert facts["started (UTC)"] == ["2026-03-01 12:30", "2026-03-01 12:30", "–"]
    assert facts["duration of the fit"] == ["2 h 05 min", "2 h 05 min", "–"]
    assert facts["duration per epoch"] == ["1 h 02 min", "1 h 02 min", "–"]
    assert facts["duration of the test"] == ["12.3 s", "12.3 s", "–"]
    assert facts["times resumed"] == ["1", "1", "–"]
    assert facts["GPUs"] == ["2 × H100", "–"]  # runs on the same machine share a column
    assert facts["CPU"] == ["A <fast> CPU", "–"]
    assert facts["memory, GiB"] == ["126", "–"]
    assert facts["torch"] == ["2.9.1", "–"]
    assert "cuda" not in facts
    assert page.texts_in("th").count("fold-0, fold-1") == 2


def test_older_runs_have_dashes(tmp_path: Path) -> None:
    run = write_fold(tmp_path / "run", classified(CASES, ["0", "1"], seed=0))
    facts = facts_of(make_page(run.folder, [run]))
    for name in (
        "precision",
        "best epoch, counted from 0",
        "threshold",
        "duration of the fit",
        "duration of the test",
        "GPUs",
        "CPU",
        "e2e_abmilx",
    ):
        assert facts[name] == ["–"]
    assert facts["epochs"] == ["2"]


def test_a_checkpoint_without_a_value_has_a_dash(tmp_path: Path) -> None:
    run = write_fold(tmp_path / "run", classified(CASES, ["0", "1"], seed=0))
    (run.folder / "run.yaml").write_text(RECORD.replace("value: 0.6", "value: null"))
    assert "value: null" in (run.folder / "run.yaml").read_text()
    assert facts_of(make_page(run.folder, [run]))["selected by"] == ["val/loss –"]


def test_how_best_and_threshold_were_chosen_is_shown(tmp_path: Path) -> None:
    run = write_fold(tmp_path / "run", classified(CASES, ["0", "1"], seed=0))
    threshold = "{value: 0.48213, split: val, cases: 18, rule: highest Youden index}"
    record = RECORD.replace("monitor: val/loss,", "monitor: val/loss, mode: min,") + f"threshold: {threshold}\n"
    (run.folder / "run.yaml").write_text(record)
    facts = facts_of(make_page(run.folder, [run]))
    assert facts["selected by"] == ["lowest val/loss 0.6"]
    assert facts["threshold"] == ["0.4821 (highest Youden index, 18 val cases)"]


def test_a_threshold_of_an_earlier_release_has_only_its_value(tmp_path: Path) -> None:
    run = write_fold(tmp_path / "run", classified(CASES, ["0", "1"], seed=0))
    (run.folder / "run.yaml").write_text(RECORD + "threshold: {value: 0.48213, split: val, cases: 0, rule: ''}\n")
    assert facts_of(make_page(run.folder, [run]))["threshold"] == ["0.4821"]
