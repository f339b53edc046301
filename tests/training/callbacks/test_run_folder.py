"""A run's folder holds one run, whole; what is refused displaces nothing; what is tested is best.ckpt."""

import csv
import logging
import shutil
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
                "features": str(folder / "features"), "labels": str(folder / "labels.csv"), "batch_size": 2, "num_workers": 0,
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


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, with a heatmap made of it."""
    folder = tmp_path_factory.mktemp("template")
    _fit(_write(folder))
    (folder / "run/heatmaps/s00").mkdir(parents=True)
    (folder / "run/heatmaps/s00/overlay.png").write_bytes(b"a picture")
    return folder / "run"


@pytest.fixture
def finished(template: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A config, and the folder of its finished run."""
    shutil.copytree(template, tmp_path / "run")
    return _write(tmp_path), tmp_path / "run"


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
    assert told.text.count(f"the val split has no auc, kappa, qwk: {cases} of class") == 1
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
        "--trainer.callbacks+=e2e_abmilx.training.callbacks.early_stopping.DeferredEarlyStopping",
        "--trainer.callbacks.monitor=val/auc",
    ]
    with pytest.raises(
        SystemExit, match=r"DeferredEarlyStopping cannot stop by val/auc \(all 6 cases are of class 1\)"
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


def test_names_of_checkpoints_mean_files_of_the_run(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """Lightning's own "last" finds none in a new process, warns, and begins with random weights."""
    config, run = finished
    losses = _column(run, "val/loss")
    _fit(config, "--ckpt_path", "last", "--trainer.max_epochs", "5")
    assert _column(run, "val/loss")[:3] == losses
    assert len(_column(run, "val/loss")) == 5
    assert not (run / "earlier-1").exists()
    for chosen in (["--ckpt_path", "best"], []):
        main(["test", "--config", str(config), *chosen])
        assert (run / "test/predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()


@pytest.mark.parametrize(
    ("verb", "checkpoint", "message"),
    [
        ("test", None, "test needs a trained model"),
        ("validate", None, "validate needs a trained model"),
        ("predict", None, "predict needs a trained model"),
        ("test", "last", "there is no checkpoint .*last.ckpt; check the path"),
        ("fit", "last", "there is no checkpoint .*last.ckpt; check the path"),
        ("fit", "absent.ckpt", "there is no checkpoint absent.ckpt"),
        ("fit", "labels.csv", "labels.csv is no checkpoint"),
    ],
)
def test_no_model_is_untrained_by_mistake(
    verb: str, checkpoint: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _write(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        main([verb, "--config", str(config), *(["--ckpt_path", checkpoint] if checkpoint else [])])


def test_going_on_with_another_folders_run_puts_this_one_aside(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    config, run = finished
    before = _files(run)
    _fit(config, "--trainer.default_root_dir", str(tmp_path / "other"))
    _fit(config, "--ckpt_path", str(tmp_path / "other/last.ckpt"), "--trainer.max_epochs", "4")
    assert _files(run / "earlier-1") == before
    assert len(_column(run, "val/loss")) == 1  # the fourth epoch alone is this folder's


@pytest.mark.parametrize(
    "options",
    [
        ("--trainer.max_epochs", "0"),
        ("--trainer.limit_train_batches", "0"),
        ("--trainer.limit_val_batches", "0"),
        ("--trainer.check_val_every_n_epoch", "9"),
        ("--trainer.max_epoch", "5"),  # half a name
        ("--model.optimizer.lr", "-1"),
        ("--last_checkpoint.every_n_steps", "0"),
        ("--trainer.gradient_clip_algorithm", "foo"),
    ],
    ids=" ".join,
)
def test_runs_that_cannot_succeed_displace_nothing(
    options: tuple[str, ...], finished: tuple[Path, Path]
) -> None:
    config, run = finished
    before = _files(run)
    with pytest.raises(SystemExit) as stopped:
        _fit(config, *options)
    assert stopped.value.code
    assert _files(run) == before


def test_a_metric_that_turns_out_to_have_no_value_chooses_nothing(
    tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    """A batch of one class has no AUC, though the split it is of has."""
    _fit(_write(tmp_path), "--trainer.overfit_batches", "1")
    run = tmp_path / "run"
    losses = _column(run, "val/loss")
    assert told.text.count("val/auc has no value in epoch 0: best.ckpt is chosen by the lowest val/loss") == 1
    assert _epoch(run / "best.ckpt") == losses.index(min(losses))


@pytest.mark.parametrize(
    "kind", ["EarlyStopping", "e2e_abmilx.training.callbacks.early_stopping.DeferredEarlyStopping"]
)
def test_nobody_stops_by_what_has_no_value(kind: str, tmp_path: Path) -> None:
    stop = [
        f"--trainer.callbacks+={kind}",
        "--trainer.callbacks.monitor=val/auc",
        "--trainer.callbacks.mode=max",
    ]
    with pytest.raises(SystemExit, match=r"Stopping cannot stop by val/auc \(all 6 cases are of class 1\)"):
        _fit(_write(tmp_path, split="one class"), *stop)


def test_verbs_folders_belong_to_their_run(finished: tuple[Path, Path]) -> None:
    config, run = finished
    main(["test", "--config", str(config)])
    _fit(config)
    assert not (run / "test").exists()
    assert (run / "earlier-1/test/predictions.csv").exists()
