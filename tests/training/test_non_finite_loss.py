"""A loss that is not finite ends the fit with the names of its cases, before its model is saved."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from small_fits import make_data, make_task, make_trainer

from e2e_abmilx.errors import InputError


def test_the_cases_of_the_batch_are_named(tmp_path: Path) -> None:
    data = make_data(tmp_path, overflowing="s07")
    with pytest.raises(InputError, match=r"the loss is nan in epoch 0, batch \d+, of cases s07; .*precision"):
        make_trainer(tmp_path).fit(make_task(), data)


class _SaveEachBatch(Callback):
    """Saves a checkpoint after each batch, also after one whose loss is not finite."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        trainer.save_checkpoint(self.path)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """The loss is checked before a checkpoint is saved, not only a step later."""
    path = tmp_path / "last.ckpt"
    data = make_data(tmp_path, overflowing="s07")
    with pytest.raises(InputError, match=r"the loss is nan in epoch 0, batch \d+, of cases s07"):
        make_trainer(tmp_path, _SaveEachBatch(path)).fit(make_task(), data)
    weights = torch.load(path, weights_only=False)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())


def test_the_last_loss_of_an_epoch_is_checked(tmp_path: Path) -> None:
    data = make_data(tmp_path, cases=5, overflowing="s04")  # the only training case
    with pytest.raises(InputError, match="the loss is nan in epoch 0, batch 0, of cases s04"):
        make_trainer(tmp_path).fit(make_task(), data)
