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

from e2e_abmilx.main import main
from e2e_abmilx.training import cli

MODEL = {
    "class_path": "ClassificationTask",
    "init_args": {
        "num_outputs": 2,
        "encoder": {"class_path": "ResNetEncoder", "init_args": {"pretrained": False}},
        "head": {"class_path": "ABMILX", "init_args": {"hidden_features": 32, "num_heads": 4}},
        "augment": {"class_path": "RandomCrops", "init_args": {"size": 32}},
        "schedule": {"class_path": "WarmupCosine"},
    },
}


@pytest.fixture
def config(cohort: Path, stores: Path, tmp_path: Path) -> Path:
    """A config of three short epochs on the synthetic stores."""
    content = {
        "seed_everything": 0,
        "model": MODEL,
        "data": {
            "class_path": "SlideDataModule",
            "init_args": {
                "cache": str(stores), "labels": str(cohort / "labels.csv"), "columns": {"label": "lesion"},
                "patches_per_bag": 4, "batch_size": 4, "num_workers": 0,
            },
        },
        "trainer": {
            "default_root_dir": str(tmp_path / "run"), "max_epochs": 3, "accelerator": "cpu",
            "enable_progress_bar": False, "limit_train_batches": 2, "log_every_n_steps": 1,
        },
    }  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def _fails(args: list[str]) -> str:
    """Run and return the sentence that it ends with; there must be one, and an exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code not in (None, 0)
    return str(stopped.value.code)


def test_fit_leaves_an_answer_and_the_other_verbs_use_it(config: Path, tmp_path: Path) -> None:
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
    for verb in ("validate", "test", "predict"):
        main([verb, *saved])
        assert (run / verb / f"{verb}.yaml").exists()
    tested = drawn - {"loss", "attention_sparsity"}
    assert {path.name for path in (run / "test/figures").iterdir()} == {f"{name}.png" for name in tested}
    assert yaml.safe_load((run / "run.yaml").read_text()) == recorded
    assert (run / "test/predictions.csv").read_bytes() == before
    assert ((run / "metrics.csv").read_bytes(), (run / "fit.yaml").read_bytes()) == trained
    with open(run / "predict/predictions.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 24

    main(["test", *saved, "--trainer.fast_dev_run", "true"])  # a case or two, to try things out
    assert (run / "predictions.csv").read_bytes() == before

    main(["fit", "--config", str(config)])  # a second fit loses nothing of the first
    assert (run / "earlier-1/predictions.csv").read_bytes() == before
    assert (run / "earlier-1/best.ckpt").exists()
    assert (run / "earlier-1/run.yaml").exists()
    assert (run / "earlier-1/figures/roc.png").exists()
    assert (run / "predictions.csv").read_bytes() == before  # and, with its seed, says the same


def test_a_figure_that_fails_does_not_undo_the_test(
    config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("e2e_abmilx"), "handlers", [caplog.handler])
    run = tmp_path / "run"
    run.mkdir()
    (run / "figures").touch()  # a file where the folder must be
    main(["fit", "--config", str(config)])
    assert (run / "predictions.csv").exists()
    assert "its figures are not complete" in caplog.text


def test_a_fit_that_never_validates_says_so(
    config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("e2e_abmilx"), "handlers", [caplog.handler])
    short = ["--trainer.max_steps", "1", "--trainer.enable_progress_bar", "true"]
    sentence = _fails(["fit", "--config", str(config), *short])
    assert "no checkpoint was chosen, because validation did not run" in sentence
    never = _fails(["fit", "--config", str(config), "--trainer.check_val_every_n_epoch", "9"])
    assert "trainer.check_val_every_n_epoch is 9" in never  # known before anything is trained


def test_survival_fits(config: Path, tmp_path: Path) -> None:
    data = ["--data.target", "survival", "--data.time_bins", "2"]
    main(["fit", "--config", str(config), "--model.class_path", "SurvivalTask", *data])
    with open(tmp_path / "run/predictions.csv", newline="") as file:
        header = next(csv.reader(file))
    assert [name.partition("_")[0] for name in header] == ["case", "time", "event", "survival", "risk"]


def test_cache_command(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "caches"
    main(
        ["cache", "--slides", str(cohort / "slides/slide-000.tiff"), "--out", str(out), "--mpp", "[0.5,1.0]"]
    )
    assert (out / "slide-000.zarr").is_dir()
    (tmp_path / "bad.svs").write_text("no")
    assert "1 of 1 slides failed" in _fails(
        ["cache", "--slides", str(tmp_path / "bad.svs"), "--out", str(out)]
    )
    assert "no such folder" in _fails(["cache", "--slides", str(tmp_path / "absent"), "--out", str(out)])


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
def test_bad_input_is_one_sentence(config: Path, change: list[str], message: str) -> None:
    sentence = _fails(["fit", "--config", str(config), *change])
    assert re.search(message, sentence), sentence
    assert "Traceback" not in sentence


def test_misspelt_key_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _fails(["fit", "--config", str(config), "--data.patches_per_bags", "3"])
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
def test_a_dry_run_is_one_only_where_it_is_said(
    cohort: Path, tmp_path: Path, words: list[str], dry: bool, last: bool
) -> None:
    slide = ["--slides", str(cohort / "slides/slide-000.tiff"), "--patch_size", "256"]
    rest = [*slide, "--out", str(tmp_path / "out"), "--workers", "1"]
    main(["cache", *rest, *words] if last else ["cache", *words, *rest])
    assert (tmp_path / "out").exists() != dry


def test_a_dry_run_is_true_or_false(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _fails(["cache", "--slides", "slides", "--out", str(tmp_path / "out"), "--dry_run", "perhaps"])
    assert "perhaps" in capsys.readouterr().err


@pytest.fixture
def _own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that goes to this test's standard error, and not to that of the first test that logged."""
    monkeypatch.setattr(logging.getLogger("e2e_abmilx"), "handlers", [])


@pytest.mark.usefixtures("_own_log")
@pytest.mark.parametrize(
    "words",
    [
        ["cache", "--slides", "absent", "--out", "out"],
        ["report", "--runs", "absent"],
        ["fit", "--config", "CONFIG"],
    ],
)
@pytest.mark.parametrize("place", [0, 1, 5])
def test_debug_shows_the_traceback_of_what_ends_a_command(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], place: int
) -> None:
    words = [str(config) if word == "CONFIG" else word for word in words]
    if words[0] == "fit":
        words += ["--data.labels", "absent.csv"]
    sentence = _fails(words)
    assert "Traceback" not in capsys.readouterr().err
    assert _fails([*words[:place], "--debug", *words[place:]]) == sentence
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert sentence.removeprefix("error: ").splitlines()[0] in shown
    assert _fails(words) == sentence  # once is not for good
    assert "Traceback" not in capsys.readouterr().err


def test_debug_shows_where_an_option_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JSONARGPARSE_DEBUG", raising=False)
    words = ["fit", "--config", str(config), "--data.patches_per_bags", "3"]
    with pytest.raises(ArgumentError, match="patches_per_bags"):
        main([*words, "--debug"])
    assert "JSONARGPARSE_DEBUG" not in os.environ
    _fails(words)


def test_debug_changes_nothing_that_succeeds(config: Path, tmp_path: Path) -> None:
    main(["fit", "--config", str(config), "--debug", "--trainer.max_epochs", "1"])
    assert (tmp_path / "run/best.ckpt").is_file()
    assert list((tmp_path / "run/figures").glob("*.png"))


@pytest.mark.parametrize("written", [["{}", "null"], ["{}=null"]])
@pytest.mark.parametrize(
    "option",
    [
        "model.encoder.weights",
        "model.encoder.init_args.weights",
        "data.slides",
        "data.splits",
        "data.slide_table",
        "trainer.default_root_dir",
        "trainer.callbacks.dirpath",
        "ckpt_path",
    ],
)
def test_null_is_none_wherever_a_path_is_optional(
    config: Path, capsys: pytest.CaptureFixture[str], option: str, written: list[str]
) -> None:
    callbacks = ["--trainer.callbacks+=ModelCheckpoint"] if "callbacks" in option else []
    words = [word.format(f"--{option}") for word in written]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(config), *callbacks, *words, "--print_config"])
    assert stopped.value.code == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    for key in option.replace(".init_args", "").split("."):
        settings = settings[0] if isinstance(settings, list) else settings
        settings = settings.get("init_args", settings)[key]
    assert settings is None


def test_weights_that_are_null_are_none_in_the_model(config: Path, tmp_path: Path) -> None:
    words = ["fit", "--config", str(config), "--trainer.fast_dev_run", "true"]
    main([*words, "--model.encoder.weights", "null"])
    frozen = ["--model.encoder", "FrozenEncoder", "--model.encoder.encoder", "ResNetEncoder"]
    deep = ["--model.encoder.encoder.pretrained", "false", "--model.encoder.encoder.weights", "null"]
    main([*words, *frozen, *deep])
    assert "weights absent.pt: there is no such file" in _fails(
        [*words, *frozen, *deep[:2], "--model.encoder.encoder.weights", "absent.pt"]
    )


def test_null_is_none_for_tools_too(tmp_path: Path, cohort: Path) -> None:
    slide = ["--slides", str(cohort / "slides/slide-000.tiff"), "--patch_size", "256", "--workers", "1"]
    nulls = ["--assume_mpp", "null", "--scheduler", "null"]
    main(["cache", *slide, "--out", str(tmp_path / "out"), *nulls])
    assert (tmp_path / "out/slide-000.zarr").is_dir()
    assert "absent holds no predictions.csv" in _fails(
        ["report", "--runs", "absent", "--against", "null", "--out", "null"]
    )
    words = ["import_lmdb", "--fine", str(tmp_path), "--out", str(tmp_path / "lmdb"), "--coarse", "null"]
    assert "None" not in _fails(words)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(config: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert "set trainer.default_root_dir" in _fails(
        ["fit", "--config", str(config), "--trainer.default_root_dir", str(locked / "run")]
    )


def test_run_folder_that_is_a_file(config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "set trainer.default_root_dir" in _fails(
        ["fit", "--config", str(config), "--trainer.default_root_dir", str(tmp_path / "file/run")]
    )


@pytest.mark.parametrize("args", [["--help"], ["cache", "--help"]])
def test_help(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 0
    assert "cache" in capsys.readouterr().out


def test_precision_is_one_that_this_device_has() -> None:
    assert cli.best_precision("cpu") in ("bf16-mixed", "32-true")
