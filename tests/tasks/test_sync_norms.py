"""Synchronised BatchNorm keeps everything that timm puts into its BatchNorm layers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.encoders import ResNetEncoder, TimmEncoder
from e2e_abmilx.heads import ABMIL
from e2e_abmilx.tasks import ClassificationTask
from e2e_abmilx.tasks.sync_norms import TimmSyncBatchNorm

ENCODERS = ["efficientnet_lite0", "test_efficientnet", "regnetz_b16", "resnet18", "resnetv2_50d_frn"]


def _encoder(name: str) -> nn.Module:
    torch.manual_seed(0)
    return ResNetEncoder(name, pretrained=False) if name == "resnet18" else TimmEncoder(name, pretrained=False)


def _activations(module: nn.Module) -> int:
    kinds = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU)
    return sum(isinstance(layer, kinds) for layer in module.modules())


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("training", [False, True])
def test_conversion_does_not_change_features(name: str, training: bool) -> None:
    encoder = _encoder(name).train(training)
    kinds = [type(layer) for layer in encoder.modules()]
    activations = _activations(encoder)
    patches = torch.rand(4, 3, 64, 64)
    state = {key: value.clone() for key, value in encoder.state_dict().items()}

    def features() -> Tensor:
        encoder.load_state_dict(state)
        with torch.no_grad():
            return encoder(patches)  # type: ignore[no-any-return]

    before = features()
    sync = TimmSyncBatchNorm()
    sync.apply(encoder)
    assert not any(type(layer) is BatchNormAct2d for layer in encoder.modules())
    assert _activations(encoder) == activations
    torch.testing.assert_close(features(), before)
    sync.revert(encoder)
    assert [type(layer) for layer in encoder.modules()] == kinds
    torch.testing.assert_close(features(), before)


def test_conversion_back_keeps_new_statistics() -> None:
    encoder, other = _encoder("test_efficientnet").train(), _encoder("test_efficientnet").train()
    sync = TimmSyncBatchNorm()
    sync.apply(encoder)
    patches = torch.rand(4, 3, 64, 64)
    encoder(patches), other(patches)
    sync.revert(encoder)
    for (name, found), expected in zip(encoder.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, msg=name)


def test_frozen_norms_stay_frozen() -> None:
    encoder = TimmEncoder("test_efficientnet", pretrained=False, frozen_norms=True)
    TimmSyncBatchNorm().apply(encoder)
    norms = [layer for layer in encoder.modules() if isinstance(layer, nn.SyncBatchNorm)]
    assert norms
    assert not any(layer.training for layer in norms)


class _Count(Callback):
    """Count activations and synchronised norms when training stops."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.activations = _activations(pl_module)
        self.synced = sum(isinstance(layer, nn.SyncBatchNorm) for layer in pl_module.modules())


@pytest.fixture
def own_environment() -> Iterator[None]:
    """Remove Lightning's process group, for which processes that are started later would wait."""
    before = dict(os.environ)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("own_environment")
def test_a_trainer_that_synchronises_keeps_activations(cohort: Path, stores: Path, tmp_path: Path) -> None:
    """A process group of one process, as on a machine with one device."""
    task = ClassificationTask(TimmEncoder("test_efficientnet", pretrained=False), ABMIL, 2)
    activations, count = _activations(task), _Count()
    norms = sum(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in task.modules())
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        strategy="ddp",
        devices=1,
        sync_batchnorm=True,
        fast_dev_run=1,
        logger=False,
        enable_progress_bar=False,
        callbacks=[count],
    )
    data = SlideDataModule(stores, cohort / "labels.csv", columns={"label": "lesion"}, patches_per_bag=4, num_workers=0)
    # PyTorch runs SyncBatchNorm on GPUs only: on a CPU training stops after the conversion
    with pytest.raises(ValueError, match="SyncBatchNorm layers only work with GPU modules"):
        trainer.fit(task, data)
    assert (count.activations, count.synced) == (activations, norms)
    assert _activations(task) == activations  # after the conversion back too
    assert not any(isinstance(layer, nn.SyncBatchNorm) for layer in task.modules())
