"""The fraction of the time that the device waits for data is measured, and a high one is warned of."""

import logging
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from small_fits import make_data, make_task, make_trainer

from e2e_abmilx.datamodules import FeatureDataModule
from e2e_abmilx.training.callbacks import DataWait


class _Slow(FeatureDataModule):
    """Reads as slowly as a network disk whose cache is empty."""

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
    data = make_data(tmp_path)
    slow = _Slow(data.features, data.plan.labels, num_workers=0)
    with caplog.at_level(logging.WARNING, logger="e2e_abmilx"):
        trainer = make_trainer(tmp_path, DataWait())
        trainer.fit(make_task(), slow)
    fraction = float(trainer.callback_metrics["train/data_wait"])
    loader = trainer.train_dataloader
    assert loader.clock.waited_s >= 26 * 0.1
    assert 0.1 < fraction < 1
    assert "of its time waiting for patches, with data.num_workers 0" in caplog.text
    assert "raise data.num_workers" in caplog.text


class _Busy(Callback):
    """Takes time between batches, outside of the training step, as an asynchronous device does."""

    def on_before_zero_grad(self, *_: object) -> None:
        time.sleep(0.02)

    def on_train_batch_end(self, *_: object) -> None:
        time.sleep(0.1)


def test_time_between_batches_is_not_waiting(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, DataWait(), _Busy())
    data = make_data(tmp_path, cases=12)
    trainer.fit(make_task(), _Slow(data.features, data.plan.labels, num_workers=0))
    fraction = float(trainer.callback_metrics["train/data_wait"])
    # 100 ms of at least 220 ms; as a fraction of loader and step alone it would be above 0.8
    assert 0 < fraction < 0.6
