"""A run that is killed and resumed equals an uninterrupted one, bit for bit."""

import csv
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.encoders import TimmEncoder
from e2e_abmilx.encoders.augment import RandomCrops
from e2e_abmilx.heads import ABMIL, ABMILX
from e2e_abmilx.tasks import ClassificationTask
from e2e_abmilx.tasks.schedules import WarmupCosine
from e2e_abmilx.training.callbacks import BestCheckpoint, LastCheckpoint
from e2e_abmilx.training.loggers import RunLogger

TIMINGS = ("train/data_wait",)
EPOCHS, STEPS = 3, 3  # of the run below: batches of 4 of 12 training cases


class Killed(BaseException):
    """Stands for a kill: no code that cleans up handles it."""


class KillAt(Callback):
    """End the run when a batch starts."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise Killed


def _fit(
    folder: Path, cohort: Path, stores: Path, *, kill_at: int | None = None, accumulate: int = 1
) -> ClassificationTask:
    """Fit, from ``last.ckpt`` if it exists."""
    last = folder / "last.ckpt"
    seed_everything(3, verbose=False)
    task = ClassificationTask(
        TimmEncoder("test_resnet", pretrained=False),  # 16 to 64 channels, with BatchNorm
        lambda width, outputs: ABMILX(width, outputs, hidden_features=16, num_heads=2, dropout=0.25),
        2,
        augment=RandomCrops(32),
        train_chunk_size=12,
        gradient_checkpointing=True,
        schedule=lambda optimizer, steps: WarmupCosine(optimizer, steps, warmup=0.2),
    )
    data = SlideDataModule(
        stores, cohort / "labels.csv", columns={"label": "lesion"}, patches_per_bag=8, batch_size=4, num_workers=0
    )
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=EPOCHS,
        accelerator="cpu",
        precision="32-true",
        accumulate_grad_batches=accumulate,
        logger=RunLogger(folder, resume=last.exists()),
        callbacks=[
            EMAWeightAveraging(decay=0.9),
            BestCheckpoint(),
            LastCheckpoint(every_n_steps=1),
            *([] if kill_at is None else [KillAt(kill_at)]),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(task, data, ckpt_path=last if last.exists() else None, weights_only=False)
    return task


def _same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))  # type: ignore[arg-type]
    return bool(one == other)


def _rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMINGS} for row in csv.DictReader(file)]


def _assert_same_run(one: Path, other: Path) -> None:
    states = [torch.load(folder / "last.ckpt", weights_only=False) for folder in (one, other)]
    for name in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert _same(states[0][name], states[1][name]), name
    best = [torch.load(folder / "best.ckpt", weights_only=False)["state_dict"] for folder in (one, other)]
    assert _same(*best)
    assert _rows(one) == _rows(other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cohort: Path, stores: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    _fit(folder, cohort, stores)
    assert torch.load(folder / "last.ckpt", weights_only=False)["global_step"] == EPOCHS * STEPS
    return folder


@pytest.mark.parametrize(
    "step",
    # in the first epoch, at its end, in the second
    [
        pytest.param(step, marks=() if step in (1, STEPS, STEPS + 1) else pytest.mark.slow)
        for step in range(1, EPOCHS * STEPS)
    ],
)
def test_stopped_at_any_step(step: int, whole: Path, cohort: Path, stores: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        _fit(tmp_path, cohort, stores, kill_at=step)
    _fit(tmp_path, cohort, stores)
    _assert_same_run(whole, tmp_path)


class _Count(Callback):
    """Record the cases of each batch, by epoch."""

    def __init__(self) -> None:
        self.batches: dict[int, list[tuple[str, ...]]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: object, batch: Bag, batch_idx: int) -> None:
        self.batches.setdefault(trainer.current_epoch, []).append(batch.cases)


def test_a_finished_run_can_be_extended(cohort: Path, stores: Path, tmp_path: Path) -> None:
    """A checkpoint saved after ``fit`` records that its last epoch is complete."""
    counts = []
    for epochs in ([3], [2, 3]):
        count = _Count()
        for end in epochs:
            seed_everything(3, verbose=False)
            task = ClassificationTask(TimmEncoder("test_resnet", pretrained=False), ABMIL, 2, augment=RandomCrops(32))
            data = SlideDataModule(
                stores, cohort / "labels.csv", columns={"label": "lesion"}, patches_per_bag=4, batch_size=4, num_workers=0
            )  # fmt: skip
            trainer = Trainer(
                default_root_dir=tmp_path, max_epochs=end, accelerator="cpu", logger=False, enable_progress_bar=False,
                enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0, callbacks=[count],
            )  # fmt: skip
            trainer.fit(task, data, ckpt_path=tmp_path / "ended.ckpt" if count.batches else None, weights_only=False)
            trainer.save_checkpoint(tmp_path / "ended.ckpt")
        counts.append(count.batches)
    assert counts[0] == counts[1]
    assert [len(batches) for batches in counts[0].values()] == [STEPS] * 3


KILLER = """
import os, signal
from lightning.pytorch import Callback

class Kill(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def _command(folder: Path, cohort: Path, stores: Path) -> list[str]:
    config = {
        "seed_everything": 3,
        "model": {
            "class_path": "ClassificationTask",
            "init_args": {
                "num_outputs": 2,
                "encoder": {"class_path": "TimmEncoder", "init_args": {"name": "test_resnet", "pretrained": False}},
                "head": {"class_path": "ABMILX", "init_args": {"hidden_features": 16, "num_heads": 2}},
                "augment": {"class_path": "RandomCrops", "init_args": {"size": 32}},
                "train_chunk_size": 12,
                "gradient_checkpointing": True,
                "schedule": {"class_path": "WarmupCosine", "init_args": {"warmup": 0.2}},
            },
        },
        "data": {
            "class_path": "SlideDataModule",
            "init_args": {
                "cache": str(stores),
                "labels": str(cohort / "labels.csv"),
                "columns": {"label": "lesion"},
                "patches_per_bag": 8,
                "batch_size": 4,
            },
        },
        "last_checkpoint": {"every_n_steps": 1},
        "trainer": {
            "default_root_dir": str(folder),
            "accelerator": "cpu",
            "precision": "32-true",
            "max_epochs": EPOCHS,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "callbacks": [{"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.9}}],
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return [sys.executable, "-m", "e2e_abmilx", "fit", "--config", str(folder / "config.yaml")]


@pytest.mark.slow
def test_killed_at_five_random_steps(cohort: Path, stores: Path, tmp_path: Path) -> None:
    (tmp_path / "killer.py").write_text(KILLER)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(folder: Path, *more: str) -> int:
        command = [*_command(folder, cohort, stores), *more]
        return subprocess.run(command, env=environment, check=False, capture_output=True).returncode

    assert run(tmp_path / "whole") == 0
    for step in random.sample(range(1, EPOCHS * STEPS), 5):
        folder = tmp_path / f"killed-{step}"
        kill = f"--trainer.callbacks+={{class_path: killer.Kill, init_args: {{step: {step}}}}}"
        assert run(folder, kill) == -signal.SIGKILL
        assert run(folder, "--ckpt_path", str(folder / "last.ckpt")) == 0
        _assert_same_run(tmp_path / "whole", folder)
        predictions = [(run_ / "predictions.csv").read_text() for run_ in (tmp_path / "whole", folder)]
        assert predictions[0] == predictions[1]
