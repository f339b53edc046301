"""Lines that real runs log, with a clock that each batch advances."""

import logging
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.utils.data import DataLoader

import e2e_abmilx.io.progress
from e2e_abmilx.training.callbacks import LastCheckpoint
from e2e_abmilx.training.callbacks.progress_lines import ProgressLines


class _Clock(Callback):
    """Stands for the module ``time``: a training batch takes 4 s, and every other batch 3 s."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def on_train_batch_start(self, *args: object) -> None:
        self.now += 4

    def on_validation_batch_start(self, *args: object) -> None:
        self.now += 3

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start


class _StopAt(Callback):
    """End the run after a step, either by an error or as early stopping does."""

    def __init__(self, step: int, error: type[BaseException] | None = None) -> None:
        self.step, self.error = step, error

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        if trainer.global_step == self.step:
            if self.error is not None:
                raise self.error
            trainer.should_stop = True


class _Killed(BaseException):
    """Stands for a kill: no code that cleans up handles it."""


class _Module(LightningModule):
    """Logs the metrics of a bag task; the loss is the number of the step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        number = float(self.trainer.fit_loop.total_batch_idx)
        self.log("train/loss_step", number, prog_bar=True)
        self.log("train/loss_epoch", number, on_step=False, on_epoch=True)
        self.log("train/entropy", 0.1, on_step=False, on_epoch=True)
        loss: Tensor = self.layer(batch).sum()
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log_dict({"val/loss": 0.5, "val/auc": 0.75, "val/f1": 0.25})

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("test/auc", 0.75)

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _loader(batches: int) -> DataLoader[Tensor]:
    return DataLoader([torch.ones(1)] * batches)  # type: ignore[arg-type]


def _trainer(folder: Path, *callbacks: Callback, **how: object) -> Trainer:
    clock = e2e_abmilx.io.progress.time
    assert isinstance(clock, _Clock)
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_model_summary=False,
        callbacks=[clock, ProgressLines(), *callbacks],
        **{"num_sanity_val_steps": 0, "enable_checkpointing": False, **how},  # type: ignore[arg-type]
    )


@pytest.fixture(autouse=True)
def _clock_and_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(e2e_abmilx.io.progress, "time", _Clock())
    caplog.set_level(logging.INFO, logger="e2e_abmilx")


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("e2e_abmilx")]
    caplog.clear()
    return lines


def test_a_fit_logs_its_place_and_the_metrics_of_each_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stopping = EarlyStopping("val/auc", mode="max", patience=9)
    _trainer(tmp_path, stopping, max_epochs=3).fit(_Module(), _loader(5), _loader(2))
    assert _lines(caplog) == [
        "epoch 0, batch 2 of 5: train/loss_step 1, 0:00:08 elapsed, about 0:00:52 to go",
        "epoch 0, batch 5 of 5: train/loss_step 4, 0:00:20 elapsed, about 0:00:40 to go",
        "validating: 2 of 2 batches, 0:00:06 elapsed",
        "epoch 0: train/loss_epoch 2, val/loss 0.5, val/auc 0.75, 0:00:26 elapsed, about 0:00:52 to go",
        "epoch 1, batch 3 of 5: train/loss_step 7, 0:00:38 elapsed, about 0:00:33 to go",
        "validating: 2 of 2 batches, 0:00:06 elapsed",
        "epoch 1: train/loss_epoch 7, val/loss 0.5, val/auc 0.75, 0:00:52 elapsed, about 0:00:26 to go",
        "epoch 2, batch 3 of 5: train/loss_step 12, 0:01:04 elapsed, about 0:00:10 to go",
        "validating: 2 of 2 batches, 0:00:06 elapsed",
        "epoch 2: train/loss_epoch 12, val/loss 0.5, val/auc 0.75, 0:01:18 elapsed",
    ]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"max_epochs": 4, "limit_train_batches": 3}, "epoch 0, batch 2 of 3.*about 0:00:40 to go"),
        ({"max_steps": 8}, "epoch 0, batch 2 of 5.*about 0:00:24 to go"),
        ({"max_steps": 8, "accumulate_grad_batches": 2}, "epoch 0, batch 2 of 5.*about 0:00:56 to go"),
        ({"max_steps": 8, "max_epochs": 1}, "epoch 0, batch 2 of 5.*about 0:00:12 to go"),
    ],
)
def test_time_to_go_is_that_to_the_nearest_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: dict[str, object], expected: str
) -> None:
    _trainer(tmp_path, **how).fit(_Module(), _loader(5))
    first, *_ = _lines(caplog)
    assert re.match(expected, first), first


def test_without_an_end_there_is_no_time_to_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _trainer(tmp_path, _StopAt(5), max_epochs=-1).fit(_Module(), _loader(3))
    assert _lines(caplog) == [
        "epoch 0, batch 2 of 3: train/loss_step 1, 0:00:08 elapsed",
        "epoch 0: train/loss_epoch 1, 0:00:12 elapsed",
        "epoch 1: train/loss_epoch 3.5, 0:00:20 elapsed",
    ]


def test_a_resumed_fit_estimates_from_its_own_pace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    last, kill = LastCheckpoint(every_n_steps=1), _StopAt(7, _Killed)
    killed = _trainer(tmp_path, kill, last, max_epochs=4, enable_checkpointing=True)
    with pytest.raises(_Killed):
        killed.fit(_Module(), _loader(5))
    caplog.clear()
    resumed = _trainer(tmp_path, max_epochs=4)
    resumed.fit(_Module(), _loader(5), ckpt_path=tmp_path / "last.ckpt")
    assert _lines(caplog)[:2] == [
        "epoch 1, batch 3 of 5: train/loss_step 7, 0:00:08 elapsed, about 0:00:48 to go",
        "epoch 1: train/loss_epoch 7.5, 0:00:16 elapsed, about 0:00:40 to go",
    ]


def test_an_epoch_without_validation_has_no_metrics_of_an_earlier_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = _trainer(tmp_path, max_epochs=3, check_val_every_n_epoch=2)
    trainer.fit(_Module(), _loader(1), _loader(1))
    assert [line.split(", 0:")[0] for line in _lines(caplog)] == [
        "epoch 0: train/loss_epoch 0",
        "epoch 1: train/loss_epoch 1, val/loss 0.5",
        "epoch 2: train/loss_epoch 2",
    ]


def test_other_commands_count_batches(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for command, doing in (("validate", "validating"), ("test", "testing"), ("predict", "predicting")):
        getattr(_trainer(tmp_path), command)(_Module(), _loader(8))
        assert _lines(caplog) == [
            f"{doing}: 2 of 8 batches, 0:00:06 elapsed, about 0:00:18 to go",
            f"{doing}: 6 of 8 batches, 0:00:18 elapsed, about 0:00:06 to go",
            f"{doing}: 8 of 8 batches, 0:00:24 elapsed",
        ]
        getattr(_trainer(tmp_path, **{f"limit_{command.replace('validate', 'val')}_batches": 1}), command)(
            _Module(), _loader(8)
        )
        assert _lines(caplog) == []  # 3 s


def test_a_long_check_before_training_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = _trainer(tmp_path, max_epochs=1, num_sanity_val_steps=3)
    trainer.fit(_Module(), _loader(1), _loader(4))
    assert _lines(caplog) == [
        "checking validation: 2 of 3 batches, 0:00:06 elapsed, about 0:00:03 to go",
        "checking validation: 3 of 3 batches, 0:00:09 elapsed",
        "validating: 2 of 4 batches, 0:00:06 elapsed, about 0:00:06 to go",
        "validating: 4 of 4 batches, 0:00:12 elapsed",
        "epoch 0: train/loss_epoch 0, val/loss 0.5, 0:00:16 elapsed",
    ]


def test_a_process_that_is_not_the_first_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = _trainer(tmp_path, max_epochs=1)
    assert isinstance(trainer.progress_bar_callback, ProgressLines)
    trainer.progress_bar_callback.disable()
    trainer.fit(_Module(), _loader(5), _loader(5))
    assert _lines(caplog) == []
    trainer.progress_bar_callback.enable()
    trainer.test(_Module(), _loader(5))
    assert len(_lines(caplog)) == 2
