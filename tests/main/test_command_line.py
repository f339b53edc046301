"""The command line from end to end."""

import csv
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentError
from PIL import Image
from slide_runs import message_of, write_slide_config

from e2e_abmilx import PatchStore, __version__
from e2e_abmilx.main import main
from e2e_abmilx.main.commands import overview


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


@pytest.mark.parametrize("args", [["cache", "--help"], ["help", "cache"]])
def test_help_of_a_command(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 0
    assert "--min_tissue" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["help"], ["--debug"]])
def test_the_overview(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"{overview()}\n"


@pytest.mark.parametrize(
    ("words", "shown"), [("--help", "import_coords"), ("--version", f"e2e-abmilx {__version__}"), ("fitt", "")]
)
def test_overview_and_version_import_nothing_slow(words: str, shown: str) -> None:
    """Then they take some hundredths of a second of CPU time."""
    slow = {"torch", "lightning", "pandas", "numpy", "matplotlib", "jsonargparse", "yaml", "e2e_abmilx.training"}
    code = (
        "import sys; from e2e_abmilx.main import main\n"
        f"try: main([{words!r}])\n"
        f"except SystemExit: print(sorted(set(sys.modules) & {slow!r}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown in ran.stdout
    assert ran.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fitt"], "'fitt' is no command; did you mean fit? `e2e-abmilx --help` lists all commands"),
        (["import-coords"], "'import-coords' is no command; did you mean import_coords?"),
        (["zzz"], "'zzz' is no command; `e2e-abmilx --help` lists all commands"),
        (["--hlep"], "'--hlep' is no command"),
        (["cache", "--slidez", "s", "--out", "o"], "--slidez is no option of cache; did you mean --slides?"),
        (["report", "--agaisnt", "a"], "--agaisnt is no option of report; did you mean --against?"),
        (
            ["predict", "--model", "a", "--slide", "s", "--uot", "o"],
            "--uot is no option of predict; did you mean --out?",
        ),
        (["cache", "--slides", "s", "--out", "a", "b"], "--out takes one value, but 2 are given: a, b"),
    ],
)
def test_mistyped_words_get_the_near_miss(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "meant", "owner"),
    [
        ("--data.lables", "--data.labels", "SlideDataModule"),
        ("--model.head.num_headz", "--model.head.num_heads", "ABMILX"),
        ("--trainer.max_epoch", "--trainer.max_epochs", "fit"),
        ("--chekpoint.monitor", "--checkpoint.monitor", "fit"),
    ],
)
def test_options_of_fit_get_the_near_miss(
    config: Path, option: str, meant: str, owner: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message_of(["fit", "--config", str(config), option, "3"]) == "2"
    error = capsys.readouterr().err
    assert error.endswith(f"error: {option} is no option of {owner}; did you mean {meant}?\n")
    assert len(error.splitlines()) == 3  # the usage, where the help is, and the error


@pytest.mark.parametrize("scales", [["0.5", "1.0"], ["0.5,1.0"], ["[0.5,1.0]"]])
def test_scales_and_files_need_no_brackets(cohort: Path, tmp_path: Path, scales: list[str]) -> None:
    slides = [str(cohort / f"slides/slide-00{number}.tiff") for number in range(2)]
    main(
        ["cache", "--slides", *slides, "--out", str(tmp_path), "--mpp", *scales, "--patch_size", "64", "--workers", "1"]
    )
    for number in range(2):
        assert PatchStore(tmp_path / f"slide-00{number}.zarr").scales == (0.5, 1.0)


def test_a_config_with_a_section_per_command_comes_first(config: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    sections = {name: {**settings, "seed_everything": seed} for name, seed in (("fit", 1), ("test", 2))}
    config.write_text(yaml.safe_dump(sections))
    main(["--config", str(config), "fit", "--trainer.max_epochs", "1"])
    assert yaml.safe_load((tmp_path / "run/fit.yaml").read_text())["seed_everything"] == 1
    main([f"--config={config}", "test", "--ckpt_path", str(tmp_path / "run/best.ckpt")])
    assert yaml.safe_load((tmp_path / "run/test/test.yaml").read_text())["seed_everything"] == 2


def test_lists_of_fit_need_no_brackets(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data.mpp", "0.5", "2.0", "--data.classes", "a,b", "--model.optimizer", "AdamW"]
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(config), *words, "--model.optimizer.betas", "0.8", "0.9", "--print_config"])
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["data"]["init_args"]["mpp"] == [0.5, 2.0]
    assert settings["data"]["init_args"]["classes"] == ["a", "b"]
    assert settings["model"]["init_args"]["optimizer"]["init_args"]["betas"] == [0.8, 0.9]
