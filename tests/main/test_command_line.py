"""The command line from end to end."""

import csv
import logging
import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentError
from PIL import Image
from slide_runs import message_of, write_slide_config

from e2e_abmilx.main import main


@pytest.fixture
def config(cohort: Path, stores: Path, tmp_path: Path) -> Path:
    return write_slide_config(tmp_path, cohort, stores)


def test_a_fit_is_tested_and_the_other_commands_use_its_model(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    main(["fit", "--config", str(config)])
    assert {"fit.yaml", "run.yaml", "best.ckpt", "last.ckpt", "metrics.csv", "predictions.csv"} <= {
        p.name for p in run.iterdir()
    }
    drawn = {"roc", "precision_and_recall", "confusion", "reliability", "loss", "attention_sparsity"}
    assert {path.name for path in (run / "figures").iterdir()} == {f"{name}.png" for name in drawn}
    with Image.open(run / "figures/roc.png") as picture:
        assert picture.width == pytest.approx(85 / 25.4 * 300, abs=1)
    recorded = yaml.safe_load((run / "run.yaml").read_text())
    assert recorded["fit"]["epochs"] == 3
    assert recorded["test"]["seconds"] > 0
    with open(run / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case", "label", "probability_0", "probability_1"]
    assert len({row["case"] for row in rows}) == len(rows) == 8
    for row in rows:
        assert float(row["probability_0"]) + float(row["probability_1"]) == pytest.approx(1, abs=1e-4)
    with open(run / "metrics.csv", newline="") as file:
        logged = list(csv.DictReader(file))
    assert any(row.get("train/loss_step") for row in logged)
    assert any(row.get("val/auc") for row in logged)
    assert any(row.get("test/auc") for row in logged)

    assert torch.load(run / "last.ckpt", weights_only=False)["epoch"] == 2
    trained = (run / "metrics.csv").read_bytes(), (run / "fit.yaml").read_bytes()
    before = (run / "predictions.csv").read_bytes()
    saved = ["--config", str(run / "fit.yaml"), "--ckpt_path", str(run / "best.ckpt")]
    for command in ("validate", "test", "predict"):
        main([command, *saved])
        assert (run / command / f"{command}.yaml").exists()
    tested = drawn - {"loss", "attention_sparsity"}
    assert {path.name for path in (run / "test/figures").iterdir()} == {f"{name}.png" for name in tested}
    assert yaml.safe_load((run / "run.yaml").read_text()) == recorded
    assert (run / "test/predictions.csv").read_bytes() == before
    assert ((run / "metrics.csv").read_bytes(), (run / "fit.yaml").read_bytes()) == trained
    with open(run / "predict/predictions.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 24

    main(["test", *saved, "--trainer.fast_dev_run", "true"])  # a trial of one batch
    assert (run / "predictions.csv").read_bytes() == before

    main(["fit", "--config", str(config)])  # a second fit keeps the files of the first
    assert (run / "earlier-1/predictions.csv").read_bytes() == before
    assert (run / "earlier-1/best.ckpt").exists()
    assert (run / "earlier-1/run.yaml").exists()
    assert (run / "earlier-1/figures/roc.png").exists()
    assert (run / "predictions.csv").read_bytes() == before  # the same seed gives the same result


def test_a_figure_that_fails_does_not_fail_the_run(
    config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("e2e_abmilx"), "handlers", [caplog.handler])
    run = tmp_path / "run"
    run.mkdir()
    (run / "figures").touch()  # a file in place of the folder
    main(["fit", "--config", str(config)])
    assert (run / "predictions.csv").exists()
    assert "its figures are not complete" in caplog.text


def test_survival_fits(config: Path, tmp_path: Path) -> None:
    data = ["--data.target", "survival", "--data.time_bins", "2"]
    main(["fit", "--config", str(config), "--model.class_path", "SurvivalTask", *data])
    with open(tmp_path / "run/predictions.csv", newline="") as file:
        header = next(csv.reader(file))
    assert [name.partition("_")[0] for name in header] == ["case", "time", "event", "survival", "risk"]


def test_cache_command(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "caches"
    main(["cache", "--slides", str(cohort / "slides/slide-002.tiff"), "--out", str(out), "--mpp", "[0.5,1.0]"])
    assert (out / "slide-002.zarr").is_dir()
    (tmp_path / "bad.svs").write_text("no")
    assert "1 of 1 slides failed" in message_of(["cache", "--slides", str(tmp_path / "bad.svs"), "--out", str(out)])
    assert "no such folder" in message_of(["cache", "--slides", str(tmp_path / "absent"), "--out", str(out)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data.classes", '["0","2"]'], "label '1' of case .* is not one of the classes"),
        (["--model.num_outputs", "3"], "set model.num_outputs to 2"),
        (["--data.labels", "absent.csv"], "no such label table"),
        (["--data.cache", "absent"], "run `e2e-abmilx cache` first"),
        (["--model.head.num_heads", "5"], "num_heads"),
        (["--data.patches_per_bag", "0"], "patches_per_bag is 0"),
    ],
)
def test_invalid_input_ends_with_one_message(config: Path, change: list[str], message: str) -> None:
    found = message_of(["fit", "--config", str(config), *change])
    assert re.search(message, found), found
    assert "Traceback" not in found


def test_a_misspelt_option_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message_of(["fit", "--config", str(config), "--data.patches_per_bags", "3"])
    assert "patches_per_bags" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "dry"),
    [
        (["--dry_run", "false"], False),
        (["--dry-run", "false"], False),
        (["--dry_run=false"], False),
        (["--dry-run=false"], False),
        (["--dry-run=true"], True),
        (["--dry-run", "true"], True),
        (["--dry_run", "true"], True),
        (["--dry_run"], True),
        (["--dry-run"], True),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_a_dry_run_only_if_asked_for(cohort: Path, tmp_path: Path, words: list[str], dry: bool, last: bool) -> None:
    slide = ["--slides", str(cohort / "slides/slide-002.tiff"), "--patch_size", "256"]
    rest = [*slide, "--out", str(tmp_path / "out"), "--workers", "1"]
    main(["cache", *rest, *words] if last else ["cache", *words, *rest])
    assert (tmp_path / "out").exists() != dry


def test_a_dry_run_is_true_or_false(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message_of(["cache", "--slides", "slides", "--out", str(tmp_path / "out"), "--dry_run", "perhaps"])
    assert "perhaps" in capsys.readouterr().err


@pytest.fixture
def own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the log write to the standard error of this test, not to that of the first test that logged."""
    monkeypatch.setattr(logging.getLogger("e2e_abmilx"), "handlers", [])


@pytest.mark.usefixtures("own_log")
@pytest.mark.parametrize(
    "words",
    [["cache", "--slides", "absent", "--out", "out"], ["report", "--runs", "absent"], ["fit", "--config", "CONFIG"]],
)
@pytest.mark.parametrize("place", [0, 1, 5])
def test_debug_shows_the_traceback_of_an_error(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], place: int
) -> None:
    words = [str(config) if word == "CONFIG" else word for word in words]
    if words[0] == "fit":
        words += ["--data.labels", "absent.csv"]
    message = message_of(words)
    assert "Traceback" not in capsys.readouterr().err
    assert message_of([*words[:place], "--debug", *words[place:]]) == message
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert message.removeprefix("error: ").splitlines()[0] in shown
    assert message_of(words) == message  # only that command was in debug mode
    assert "Traceback" not in capsys.readouterr().err


def test_debug_raises_the_error_of_a_refused_option(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JSONARGPARSE_DEBUG", raising=False)
    words = ["fit", "--config", str(config), "--data.patches_per_bags", "3"]
    with pytest.raises(ArgumentError, match="patches_per_bags"):
        main([*words, "--debug"])
    assert "JSONARGPARSE_DEBUG" not in os.environ
    message_of(words)


def test_debug_does_not_change_a_successful_command(config: Path, tmp_path: Path) -> None:
    main(["fit", "--config", str(config), "--debug", "--trainer.max_epochs", "1"])
    assert (tmp_path / "run/best.ckpt").is_file()
    assert list((tmp_path / "run/figures").glob("*.png"))


def test_tools_read_null_as_none(tmp_path: Path, cohort: Path) -> None:
    slide = ["--slides", str(cohort / "slides/slide-002.tiff"), "--patch_size", "256", "--workers", "1"]
    nulls = ["--assume_mpp", "null", "--scheduler", "null"]
    main(["cache", *slide, "--out", str(tmp_path / "out"), *nulls])
    assert (tmp_path / "out/slide-002.zarr").is_dir()
    assert "absent holds no predictions.csv" in message_of(
        ["report", "--runs", "absent", "--against", "null", "--out", "null"]
    )
    words = ["import_lmdb", "--fine", str(tmp_path), "--out", str(tmp_path / "lmdb"), "--coarse", "null"]
    assert "None" not in message_of(words)


@pytest.mark.parametrize("args", [["--help"], ["cache", "--help"]])
def test_help(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 0
    assert "cache" in capsys.readouterr().out
