"""Failures that show: waiting for data, memory that runs out, losses that are no numbers."""

import logging
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from e2e_abmilx.datamodules import FeatureDataModule
from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import ABMILX
from e2e_abmilx.tasks import ClassificationTask
from e2e_abmilx.training.callbacks import DataWait, MemoryAdvice, SplitTable


def _data(folder: Path, *, cases: int = 30, spoilt: str = "") -> FeatureDataModule:
    torch.manual_seed(0)
    (folder / "features").mkdir()
    lines = ["slide,label,split"]
    for number in range(cases):
        name = f"s{number:02d}"
        features = torch.randn(4, 6)
        if name == spoilt:
            features[2] = 3e38  # a number, but the sums of such are none
        torch.save(features, folder / f"features/{name}.pt")
        lines.append(f"{name},{number % 2},{'val' if number < 4 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return FeatureDataModule(folder / "features", folder / "labels.csv", num_workers=0)


def _task(encoder: nn.Module | None = None, **how: object) -> ClassificationTask:
    return ClassificationTask(
        encoder or Precomputed(6),
        lambda width, outputs: ABMILX(width, outputs, hidden_features=8, num_heads=2),
        2,
        **how,  # type: ignore[arg-type]
    )


def _trainer(folder: Path, *callbacks: object) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),  # type: ignore[arg-type]
    )


def test_a_loss_that_is_no_number_names_its_cases(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the loss is nan in epoch 0, batch \d+, of cases s07; .*precision"):
        _trainer(tmp_path).fit(_task(), _data(tmp_path, spoilt="s07"))


class _Slow(FeatureDataModule):
    """Reads as long as a cold network disk."""

    def random_bags(self, split: str):  # type: ignore[no-untyped-def]
        bags = super().random_bags(split)

        class Slow(torch.utils.data.Dataset):  # type: ignore[type-arg]
            def __len__(self) -> int:
                return len(bags)  # type: ignore[arg-type]

            def __getitem__(self, index: int) -> object:
                time.sleep(0.1)
                return bags[index]

        return Slow()


def test_waiting_for_data_is_measured_and_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = _data(tmp_path)
    slow = _Slow(data.features, data.labels, num_workers=0)
    with caplog.at_level(logging.WARNING, logger="e2e_abmilx"):
        trainer = _trainer(tmp_path, DataWait())
        trainer.fit(_task(), slow)
    share = float(trainer.callback_metrics["train/data_wait"])
    loader = trainer.train_dataloader
    assert loader.clock.waited_s >= 26 * 0.1
    assert 0.1 < share < 1
    assert "of its time waiting for patches, with data.num_workers 0" in caplog.text
    assert "raise data.num_workers" in caplog.text


class _Spoilt(Callback):
    """Saves a checkpoint right after the loss that was no number."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        trainer.save_checkpoint(self.path)


def test_a_spoilt_model_is_not_kept(tmp_path: Path) -> None:
    """Its loss is looked at before a checkpoint, and not only a step later."""
    path = tmp_path / "last.ckpt"
    with pytest.raises(InputError, match=r"the loss is nan in epoch 0, batch \d+, of cases s07"):
        _trainer(tmp_path, _Spoilt(path)).fit(_task(), _data(tmp_path, spoilt="s07"))
    weights = torch.load(path, weights_only=False)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())


def test_the_last_loss_of_an_epoch_is_looked_at(tmp_path: Path) -> None:
    data = _data(tmp_path, cases=5, spoilt="s04")  # the only training case
    with pytest.raises(InputError, match="the loss is nan in epoch 0, batch 0, of cases s04"):
        _trainer(tmp_path).fit(_task(), data)


class _SlowToEnd(Callback):
    """Takes its time between batches, outside of the training step, as an asynchronous device lets the CPU do."""

    def on_before_zero_grad(self, *_: object) -> None:
        time.sleep(0.02)

    def on_train_batch_end(self, *_: object) -> None:
        time.sleep(0.1)


def test_time_between_batches_is_not_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Waiting is what the loader was waited for, as a share of all of the time, and not of what a step takes the CPU."""
    trainer = _trainer(tmp_path, DataWait(), _SlowToEnd())
    trainer.fit(_task(), _Slow(_data(tmp_path, cases=12).features, tmp_path / "labels.csv", num_workers=0))
    share = float(trainer.callback_metrics["train/data_wait"])
    assert (
        0 < share < 0.6
    )  # 100 ms of 220 and more; as a share of loader and step alone it would be above 0.8


class _Hungry(Precomputed):
    """Runs out of memory as a device does."""

    def __init__(self, error: Exception) -> None:
        super().__init__(6)
        self.error = error

    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            raise self.error
        return features


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory"),
    ],
)
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_memory_that_runs_out_names_two_settings(
    error: Exception, gradient_checkpointing: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(type(error)):
        _trainer(tmp_path, MemoryAdvice()).fit(
            _task(_Hungry(error), train_chunk_size=48, gradient_checkpointing=gradient_checkpointing),
            _data(tmp_path),
        )
    assert "model.train_chunk_size (now 48 patches" in caplog.text
    assert (
        "model.gradient_checkpointing already true"
        if gradient_checkpointing
        else "model.gradient_checkpointing to true (now false)"
    ) in caplog.text


def test_other_failures_bring_no_advice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match="something else"):
        _trainer(tmp_path, MemoryAdvice()).fit(
            _task(_Hungry(RuntimeError("something else"))), _data(tmp_path)
        )
    assert "out of memory" not in caplog.text


def test_splits_are_written(tmp_path: Path) -> None:
    _trainer(tmp_path, SplitTable()).fit(_task(), _data(tmp_path))
    rows = (tmp_path / "splits.csv").read_text().splitlines()
    assert len(rows) == 31
    assert sum(row.endswith(",val") for row in rows) == 4


def test_norms_and_biases_can_be_left_out_of_weight_decay() -> None:
    task = _task(decay_norms=False)
    decayed, others = task._parameter_groups()
    assert others["weight_decay"] == 0.0
    assert all(parameter.ndim < 2 for parameter in others["params"])
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(list(task.parameters()))
    optimizer = task.optimizer(task._parameter_groups())
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-2, 0.0]
