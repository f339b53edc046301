"""A run's folder holds one run, whole; what is refused displaces nothing; what is tested is best.ckpt."""

import csv
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from e2e_abmilx.main import main


def _write(folder: Path, *, split: str = "usual", classes: int = 2) -> Path:
    """A config of 24 cases' features; ``split`` says what the validation cases are like."""
    generator = torch.Generator().manual_seed(0)
    (folder / "features").mkdir(exist_ok=True)
    rows = ["slide,label,split"]
    for number in range(24):
        part = "train" if number < 12 else "val" if number < 18 else "test"
        label = 1 if split == "one class" and part == "val" else number % classes
        if split == "one case" and part == "val" and number > 12:
            part = "train"
        if split == "absent class" and part != "train" and label == classes - 1:
            continue
        features = torch.randn(6, 8, generator=generator) + 2 * torch.eye(8)[number % classes]
        torch.save(features, folder / f"features/s{number:02}.pt")
        rows.append(f"s{number:02},{label},{part}")
    (folder / "labels.csv").write_text("\n".join(rows))
    config = {
        "seed_everything": 0,
        "model": {
            "class_path": "ClassificationTask",
            "init_args": {
                "num_outputs": classes,
                "encoder": {"class_path": "Precomputed", "init_args": {"num_features": 8}},
                "head": {"class_path": "ABMIL", "init_args": {"hidden_features": 16}},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}},
            },
        },
        "data": {
            "class_path": "FeatureDataModule",
            "init_args": {
                "features": str(folder / "features"), "labels": str(folder / "labels.csv"), "batch_size": 2, "workers": 0,
            },
        },
        "trainer": {
            "default_root_dir": str(folder / "run"), "max_epochs": 3, "accelerator": "cpu", "precision": "32-true",
            "enable_progress_bar": False, "log_every_n_steps": 1,
        },
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def _fit(config: Path, *options: str) -> None:
    main(["fit", "--config", str(config), *options])


def _column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def _epoch(path: Path) -> int:
    return int(torch.load(path, weights_only=False)["epoch"])


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the package logs, whose messages go no further once the command line has run."""
    log = logging.getLogger("e2e_abmilx")
    log.addHandler(caplog.handler)
    yield caplog
    log.removeHandler(caplog.handler)


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, Path]:
    """A config and the folder of its finished run, with a heatmap made of it."""
    config = _write(tmp_path)
    _fit(config)
    (tmp_path / "run/heatmaps/s00").mkdir(parents=True)
    (tmp_path / "run/heatmaps/s00/overlay.png").write_bytes(b"a picture")
    return config, tmp_path / "run"


REFUSED = [
    ("--trainer.fast_dev_run", "true"),
    ("--model.encoder.num_featurs", "8"),
    ("--trainer.max_epochs", "many"),
    ("--data.labels", "absent.csv"),
    ("--model.num_outputs", "5"),
    ("--data.classes", "[a,b]"),
    ("--checkpoint.monitor", "val/acu"),
    ("--checkpoint.mode", "min"),
    ("--trainer.enable_checkpointing", "false"),
    ("--model.encoder.num_features", "9"),
    ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/auc"),
]


@pytest.mark.parametrize("options", REFUSED, ids=" ".join)
def test_what_is_refused_displaces_nothing(options: tuple[str, ...], finished: tuple[Path, Path]) -> None:
    config, run = finished
    before = _files(run)
    if options[0] == "--trainer.fast_dev_run":  # done, but not kept
        _fit(config, *options)
    else:
        with pytest.raises(SystemExit) as stopped:
            _fit(config, *options)
        assert stopped.value.code
    assert _files(run) == before


def test_a_new_run_puts_all_of_the_old_one_aside(finished: tuple[Path, Path]) -> None:
    config, run = finished
    before = _files(run)
    _fit(config, "--seed_everything", "1")
    assert _files(run / "earlier-1") == before
    assert not (run / "heatmaps").exists()  # a report would show pictures of another model
    assert yaml.safe_load((run / "fit.yaml").read_text())["seed_everything"] == 1
    assert len(_column(run, "val/loss")) == 3


@pytest.mark.parametrize("logger", ["TensorBoardLogger", "false"])
def test_whatever_logger_there_is(logger: str, tmp_path: Path) -> None:
    config = _write(tmp_path)
    if logger == "TensorBoardLogger":
        pytest.importorskip("tensorboard")
        options = [
            "--trainer.logger=TensorBoardLogger",
            f"--trainer.logger.save_dir={tmp_path / 'elsewhere'}",
        ]
    else:
        options = ["--trainer.logger=false"]
    _fit(config, *options)
    run = tmp_path / "run"
    there = {path.name for path in run.iterdir()}
    assert {
        "fit.yaml",
        "run.yaml",
        "splits.csv",
        "best.ckpt",
        "last.ckpt",
        "predictions.csv",
        "figures",
    } <= there
    before = (run / "predictions.csv").read_bytes()
    main(["test", "--config", str(run / "fit.yaml"), "--ckpt_path", str(run / "best.ckpt")])
    assert (run / "predictions.csv").read_bytes() == before
    assert (run / "test/predictions.csv").read_bytes() == before  # best.ckpt was what the fit tested
    assert (run / "test/test.yaml").exists()


def test_best_is_tested_whatever_else_is_kept(tmp_path: Path) -> None:
    config = _write(tmp_path)
    own = [
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.every_n_epochs=1",
        "--trainer.callbacks.save_top_k=-1",
    ]
    _fit(
        config,
        *own,
        "--checkpoint.monitor",
        "val/loss",
        "--trainer.max_epochs",
        "8",
        "--model.optimizer.lr",
        "0.3",
    )
    run = tmp_path / "run"
    losses = _column(run, "val/loss")
    assert _epoch(run / "best.ckpt") == losses.index(min(losses))
    assert yaml.safe_load((run / "run.yaml").read_text())["best"]["epoch"] == losses.index(min(losses))
    main(["test", "--config", str(run / "fit.yaml"), "--ckpt_path", str(run / "best.ckpt")])
    assert (run / "test/predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()


@pytest.mark.parametrize(
    ("split", "cases"), [("one class", "all 6 cases are"), ("one case", "its only case is")]
)
def test_an_auc_that_cannot_be_told_chooses_nothing(
    split: str, cases: str, tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    _fit(_write(tmp_path, split=split), "--trainer.max_epochs", "6")
    assert told.text.count(f"the val split has no auc: {cases} of class") == 1
    assert "TrainerFn" not in told.text
    assert "best.ckpt is chosen by the lowest val/loss" in told.text
    run = tmp_path / "run"
    losses = _column(run, "val/loss")
    assert _epoch(run / "best.ckpt") == losses.index(min(losses))
    with (run / "metrics.csv").open(newline="") as file:
        aucs = {row["val/auc"] for row in csv.DictReader(file)} - {""}
    assert aucs <= {"nan"}


def test_stopping_by_an_auc_that_cannot_be_told_is_refused(tmp_path: Path) -> None:
    stop = [
        "--trainer.callbacks+=e2e_abmilx.callbacks.early_stopping.PatientStopping",
        "--trainer.callbacks.monitor=val/auc",
    ]
    with pytest.raises(
        SystemExit, match=r"PatientStopping cannot stop by val/auc \(all 6 cases are of class 1\)"
    ):
        _fit(_write(tmp_path, split="one class"), *stop)
    _fit(_write(tmp_path), *stop)  # and without a mode it is the metric's own


def test_absent_classes_are_left_out_and_named(
    tmp_path: Path, told: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    _fit(_write(tmp_path, split="absent class", classes=3), "--trainer.max_epochs", "12")
    for split in ("val", "test"):
        assert f"the {split} split has no case of class 2: AUC" in told.text
    assert "the train split" not in told.text
    (auc,) = _column(tmp_path / "run", "test/auc")
    assert auc == 1  # torchmetrics would say 0.667 of this perfect model
    main(["report", "--runs", str(tmp_path / "run")])
    assert " 1.000" in capsys.readouterr().out


def test_overfitting_a_few_batches(tmp_path: Path) -> None:
    """Lightning hands out cases in an order of its own then, and every epoch the same draw."""
    _fit(_write(tmp_path), "--trainer.overfit_batches", "2")
    assert (tmp_path / "run/last.ckpt").exists()
