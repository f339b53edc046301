"""run.yaml records versions, hardware and durations, also of killed and resumed runs."""

import importlib.metadata
import math
import os
import platform
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything

from e2e_abmilx import __version__
from e2e_abmilx.datamodules import FeatureDataModule
from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.heads import MeanPool
from e2e_abmilx.reports.records import fit_seconds, read_record
from e2e_abmilx.tasks import ClassificationTask
from e2e_abmilx.training.callbacks import BestCheckpoint, LastCheckpoint, RunRecord

_EPOCHS = 3


class Killed(BaseException):
    """Stands for a kill: no code that cleans up handles it."""


class KillAt(Callback):
    """End the run when an epoch starts, after a pause in the epoch before."""

    def __init__(self, epoch: int, after_s: float) -> None:
        self.epoch, self.after_s = epoch, after_s

    def on_train_epoch_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.current_epoch == self.epoch - 1:
            time.sleep(self.after_s)
        if trainer.current_epoch == self.epoch:
            raise Killed


@pytest.fixture
def data(tmp_path: Path) -> FeatureDataModule:
    """24 cases of random features, in three splits."""
    torch.manual_seed(0)
    (tmp_path / "features").mkdir()
    rows = ["slide,label,split"]
    for number in range(24):
        torch.save(torch.randn(4, 6), tmp_path / f"features/s{number:02d}.pt")
        rows.append(f"s{number:02d},{number % 2},{('train', 'train', 'val', 'test')[number // 2 % 4]}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return FeatureDataModule(tmp_path / "features", tmp_path / "labels.csv", num_workers=0)


def _trainer(run: Path, *callbacks: Callback) -> Trainer:
    return Trainer(
        default_root_dir=run, max_epochs=_EPOCHS, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[RunRecord(), BestCheckpoint(), LastCheckpoint(), *callbacks],
    )  # fmt: skip


def _task() -> ClassificationTask:
    return ClassificationTask(Precomputed(6), MeanPool, 2)


def _record(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((run / "run.yaml").read_text())
    return content


def test_the_record_of_a_finished_run(data: FeatureDataModule, tmp_path: Path) -> None:
    run, task = tmp_path / "run", _task()
    seed_everything(7, verbose=False)
    trainer, before = _trainer(run), datetime.now(UTC) - timedelta(seconds=1)
    trainer.fit(task, data)
    trainer.test(task, data, ckpt_path="best", verbose=False)
    wall_s = (datetime.now(UTC) - before).total_seconds()
    record = _record(run)
    assert not list(run.glob("*.partial"))
    assert {"e2e_abmilx": __version__, "python": platform.python_version()}.items() <= record["versions"].items()
    for name in ("torch", "torchvision", "lightning", "timm", "zarr", "tiffslide", "lifelines", "torchmetrics"):
        assert record["versions"][name] == importlib.metadata.version(name)
    hardware = record["hardware"]
    assert hardware["cpu"]
    assert (hardware["cores"], hardware["gpus"], hardware["processes"]) == (os.cpu_count(), [], 1)
    assert 0.1 < hardware["memory_gib"] < 1e5
    assert (record["precision"], record["seed"]) == ("32-true", 7)
    assert record["parameters"] == {
        part: sum(one.numel() for name, one in task.named_parameters() if name.startswith(part))
        for part in ("encoder", "head")
    }
    fit, test = record["fit"], record["test"]
    assert (fit["epochs"], fit["times_resumed"]) == (_EPOCHS, 0)
    assert before <= fit["started"] <= fit["ended"] <= test["ended"] <= datetime.now(UTC)
    assert test["seconds"] >= 0
    assert 0 < fit["seconds"] + test["seconds"] <= wall_s
    assert fit["seconds_per_epoch"] == pytest.approx(fit["seconds"] / _EPOCHS, abs=0.1)
    best = torch.load(run / "best.ckpt", weights_only=True)
    (score,) = (one["best_model_score"] for name, one in best["callbacks"].items() if "BestCheckpoint" in name)
    assert record["best"]["epoch"] == best["epoch"]
    assert (record["best"]["monitor"], record["best"]["mode"]) == (task.monitor, "max")
    assert record["best"]["value"] == pytest.approx(float(score), abs=1e-6)
    assert record["threshold"] == best["threshold"]
    assert (record["threshold"]["cases"], record["threshold"]["rule"]) == (6, "highest Youden index")


def test_a_killed_run_has_a_record_and_a_resumed_one_adds_its_time(data: FeatureDataModule, tmp_path: Path) -> None:
    run, last = tmp_path / "run", tmp_path / "run/last.ckpt"
    with pytest.raises(Killed):
        _trainer(run, KillAt(2, after_s=1.0)).fit(_task(), data)
    killed = _record(run)
    assert killed["fit"]["ended"] is None
    assert killed["versions"]["e2e_abmilx"] == __version__
    assert math.isnan(fit_seconds(read_record(run)))
    kept_s = torch.load(last, weights_only=True)["run_record"]["seconds"]
    assert kept_s >= 1

    began = time.monotonic()
    _trainer(run).fit(_task(), data, ckpt_path=last)
    passed_s = time.monotonic() - began
    resumed = _record(run)["fit"]
    assert (resumed["epochs"], resumed["times_resumed"]) == (_EPOCHS, 1)
    assert resumed["started"] == killed["fit"]["started"]
    assert kept_s - 0.05 <= resumed["seconds"] <= kept_s + passed_s + 0.05
    assert fit_seconds(read_record(run)) == resumed["seconds"]

    _trainer(run).fit(_task(), data, ckpt_path=last)  # nothing is left to do
    assert _record(run)["fit"]["times_resumed"] == 2


def test_a_second_fit_of_a_trainer_has_a_new_record(data: FeatureDataModule, tmp_path: Path) -> None:
    trainer, task = _trainer(tmp_path / "run"), _task()
    trainer.fit(task, data)
    trainer.test(task, data, ckpt_path="best", verbose=False)
    assert _record(tmp_path / "run")["test"]
    trainer.fit_loop.max_epochs = _EPOCHS + 1
    trainer.fit(task, data)
    record = _record(tmp_path / "run")
    assert (record["fit"]["times_resumed"], record["test"]) == (0, None)


def test_the_command_test_does_not_change_the_record(data: FeatureDataModule, tmp_path: Path) -> None:
    run, task = tmp_path / "run", _task()
    _trainer(run).fit(task, data)
    before = (run / "run.yaml").read_bytes()
    _trainer(run).test(task, data, ckpt_path=run / "best.ckpt", verbose=False)
    assert (run / "run.yaml").read_bytes() == before


def test_a_run_without_validation_has_no_best_epoch(data: FeatureDataModule, tmp_path: Path) -> None:
    trainer = Trainer(
        default_root_dir=tmp_path / "run", max_epochs=1, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[RunRecord()],
    )  # fmt: skip
    trainer.fit(_task(), data)
    assert _record(tmp_path / "run")["best"] is None
