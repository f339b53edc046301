"""Two folds of real fits: one is killed half-way and resumed, and no finished fold is run again."""

import csv
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from e2e_abmilx.cohort import read_cohort, write_splits
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.locks import hold
from e2e_abmilx.main import main
from e2e_abmilx.reports.command import crossval

KILL = '''
import os, signal
from pathlib import Path
from lightning.pytorch import Callback

class KillOnce(Callback):
    """Kill the process in the last epoch of fold 0, once."""

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        killed = Path(trainer.default_root_dir, "killed")
        if trainer.default_root_dir.endswith("fold-0") and trainer.current_epoch == 1 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
'''


def _write_folds(folder: Path, labels: Path) -> None:
    """Write two folds, each of which tests every fourth case of the cohort."""
    folder.mkdir()
    for fold in range(2):
        cases = [
            case._replace(split={fold: "test", 2: "val"}.get(number % 4, "train"))
            for number, case in enumerate(read_cohort(labels, columns={"label": "lesion"}))
        ]
        write_splits(cases, folder / f"splits_{fold}.csv")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, cohort: Path, stores: Path) -> Path:
    folder = tmp_path_factory.mktemp("crossval")
    _write_folds(folder / "splits", cohort / "labels.csv")
    encoder = {"class_path": "TimmEncoder", "init_args": {"name": "test_resnet", "pretrained": False}}
    head = {"class_path": "ABMILX", "init_args": {"hidden_features": 16, "num_heads": 2}}
    content = {
        "seed_everything": 1,
        "model": {
            "class_path": "ClassificationTask",
            "init_args": {"num_outputs": 2, "encoder": encoder, "head": head},
        },
        "data": {
            "class_path": "SlideDataModule",
            "init_args": {
                "cache": str(stores), "labels": str(cohort / "labels.csv"), "columns": {"label": "lesion"},
                "splits": str(folder / "splits"), "fold": 1, "patches_per_bag": 4, "batch_size": 4, "num_workers": 0,
            },
        },
        "trainer": {
            "default_root_dir": str(folder / "run"), "max_epochs": 2, "accelerator": "cpu", "precision": "32-true",
            "enable_progress_bar": False, "log_every_n_steps": 1,
            "callbacks": [{"class_path": "kill_once.KillOnce"}],
        },
    }  # fmt: skip
    (folder / "kill_once.py").write_text(KILL)
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder / "config.yaml"


@pytest.fixture(scope="module", autouse=True)
def _callback(config: Path) -> Iterator[None]:
    """Make the callback importable in this process and in those of the folds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(config.parent))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(config.parent), os.environ.get("PYTHONPATH", "")]))
        yield


@pytest.fixture(scope="module")
def log() -> Iterator[list[str]]:
    """Messages that cross-validation logs."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("e2e_abmilx.runs.fits")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture(scope="module")
def killed(config: Path, log: list[str]) -> tuple[str, list[str]]:
    """Error and log of a cross-validation whose first fold is killed in its second epoch."""
    with pytest.raises(InputError) as ended:
        crossval(["--config", str(config)])
    return str(ended.value), log.copy()


@pytest.fixture(scope="module")
def resumed(config: Path, killed: tuple[str, list[str]], log: list[str]) -> str:
    """The report of the same command given again, while another process seems to fit the first fold at first."""
    log.clear()
    taken = threading.Event()

    def take() -> None:
        with hold(config.parent / "run/fold-0/fit.lock", wait=True):
            taken.set()
            while not any(message.startswith("waiting") for message in log):
                time.sleep(0.05)

    other = threading.Thread(target=take, daemon=True)
    other.start()
    taken.wait()
    text = crossval(["--config", str(config)])
    other.join()
    return text


def _times(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.glob("fold-*/*")}


def test_a_failed_fold_does_not_stop_the_others_and_is_named(config: Path, killed: tuple[str, list[str]]) -> None:
    root = config.parent / "run"
    error, progress = killed
    assert "1 of 2 fits failed" in error
    assert f"{root / 'fold-0'} (exit status -9)" in error
    assert re.search(r"fit 1 of 2: fitting .*fold-0; 0:00:00 elapsed$", progress[0])
    assert re.search(r"fit 2 of 2: fitting .*fold-1; 0:\d\d:\d\d elapsed, about 0:\d\d:\d\d to go$", progress[1])
    assert torch.load(root / "fold-0/last.ckpt", weights_only=False)["epoch"] == 0
    assert not (root / "fold-0/predictions.csv").exists()
    assert (root / "fold-1/predictions.csv").exists()
    assert not (root / "report.csv").exists()


def test_an_interrupted_fold_is_resumed(config: Path, resumed: str, log: list[str]) -> None:
    root = config.parent / "run"
    assert any("fit 1 of 2: resuming" in message for message in log)
    assert not any("fit 2 of 2" in message for message in log)
    assert torch.load(root / "fold-0/last.ckpt", weights_only=False)["epoch"] == 1
    with open(root / "fold-0/metrics.csv", newline="") as file:
        epochs = [row["epoch"] for row in csv.DictReader(file) if row["train/loss_epoch"]]
    assert epochs == ["0", "1"]
    assert "pooled" in resumed


def test_the_report_agrees_with_the_logged_metrics(config: Path, resumed: str) -> None:
    root = config.parent / "run"
    runs = json.loads((root / "report.json").read_text())["runs"]["runs"]
    assert [run["fold"] for run in runs] == [0, 1]
    for run in runs:
        with open(Path(run["folder"]) / "metrics.csv", newline="") as file:
            logged = list(csv.DictReader(file))[-1]
        for name in ("auc", "accuracy", "balanced_accuracy", "f1", "qwk"):
            assert run["measures"][name]["point"] == pytest.approx(float(logged[f"test/{name}"]), abs=1e-6)


def test_finished_folds_are_not_run_again(config: Path, resumed: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = _times(config.parent / "run")
    main(["crossval", "--config", str(config)])
    assert _times(config.parent / "run") == before
    assert resumed in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--trainer.max_epochs", "3"], r"other settings:\n  trainer.max_epochs: 2 there, 3 now\n"),
        (["--model.head.dropout=0.5"], r"model.head.dropout: 0.25 there, 0.5 now"),
        (["--folds", "3"], "holds 2 folds"),
    ],
)
def test_other_settings_are_refused(config: Path, resumed: str, change: list[str], message: str) -> None:
    before = _times(config.parent / "run")
    with pytest.raises(InputError, match=message):
        crossval(["--config", str(config), *change])
    assert _times(config.parent / "run") == before


def test_settings_that_change_no_result_may_differ(config: Path, resumed: str) -> None:
    assert crossval(["--config", str(config), "--data.num_workers=1", "--data.fold=0"]) == resumed


@pytest.mark.slow
def test_terminating_it_terminates_the_fold(config: Path, tmp_path: Path) -> None:
    words = ["crossval", "--config", str(config), "--trainer.default_root_dir", str(tmp_path)]
    command = [sys.executable, "-m", "e2e_abmilx", *words, "--trainer.max_epochs", "1000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "fold-0/last.ckpt").exists():
        time.sleep(0.2)
    process.terminate()
    assert "the same command resumes it" in process.communicate()[1]
    assert process.returncode == 1
    metrics = (tmp_path / "fold-0/metrics.csv").stat().st_mtime_ns
    time.sleep(3)
    assert (tmp_path / "fold-0/metrics.csv").stat().st_mtime_ns == metrics
