"""Two-stage training: every head learns from a frozen encoder's features of synthetic and real slides."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from e2e_abmilx import heads
from e2e_abmilx.cache import cache_slides
from e2e_abmilx.datamodules import FeatureDataModule, SlideDataModule
from e2e_abmilx.encoders import Precomputed, ResNetEncoder
from e2e_abmilx.heads import BagHead
from e2e_abmilx.tasks import BagTask, ClassificationTask
from e2e_abmilx.training.callbacks import FeatureWriter

HEADS: dict[str, Callable[[int, int], BagHead]] = {
    name: head
    for name, head in vars(heads).items()
    if isinstance(head, type) and issubclass(head, BagHead) and name in heads.__all__ and not head.__abstractmethods__
}
_ALWAYS = ("ABMIL", "ABMILX", "MeanPool")  # the other heads are tested with the slow tests


class _Losses(Callback):
    """Collect the training loss of each epoch."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: BagTask) -> None:  # type: ignore[override]
        self.losses.append(float(trainer.callback_metrics["train/loss_epoch"]))


def _trainer(folder: Path, *callbacks: Callback, epochs: int = 1) -> Trainer:
    return Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0, callbacks=list(callbacks),
    )  # fmt: skip


def _extract(data: SlideDataModule, folder: Path) -> Path:
    """Write features of a ResNet-18 with random weights by the FeatureWriter, and return their folder.

    Its BatchNorms are first given patches, because otherwise the features hardly differ and a head cannot learn.
    """
    seed_everything(0, verbose=False)
    task = ClassificationTask(ResNetEncoder("resnet18", pretrained=False), heads.MeanPool, 2)
    data.setup("fit")
    with torch.no_grad():
        for bag in data.train_dataloader():
            task.train().encode(bag)
    _trainer(folder, FeatureWriter()).predict(task, data, return_predictions=False)
    return folder / "features"


def _learn(head: str, data: FeatureDataModule, folder: Path, *, epochs: int) -> None:
    """Fit a head; check that the training loss falls and that every test case gets a prediction."""
    seed_everything(0, verbose=False)
    task = ClassificationTask(
        Precomputed(256), HEADS[head], 2, optimizer=lambda params: torch.optim.AdamW(params, lr=3.0e-3)
    )
    followed = _Losses()
    trainer = _trainer(folder, followed, epochs=epochs)
    trainer.fit(task, data)
    first, last = followed.losses[0], sum(followed.losses[-3:]) / 3
    assert last < first, followed.losses
    (tested,) = trainer.test(task, data, verbose=False)
    assert 0 <= tested["test/auc"] <= 1
    predictions = [one for one in trainer.predict(task, data.test_dataloader()) or [] if one is not None]
    assert {one.case for one in predictions} == {case.id for case in data.cases["test"]}


def test_every_head_is_tested() -> None:
    assert len(HEADS) == 12


@pytest.fixture(scope="module")
def synthetic(cohort: Path, stores: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureDataModule:
    columns = {"label": "lesion"}
    patches = SlideDataModule(stores, cohort / "labels.csv", columns=columns, num_workers=0)
    features = _extract(patches, tmp_path_factory.mktemp("synthetic"))
    return FeatureDataModule(features, cohort / "labels.csv", columns=columns, batch_size=2, num_workers=0)


@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=() if head in _ALWAYS else pytest.mark.slow) for head in HEADS]
)
def test_heads_learn_from_features_of_synthetic_slides(head: str, synthetic: FeatureDataModule, tmp_path: Path) -> None:
    _learn(head, synthetic, tmp_path, epochs=12)


@pytest.fixture(scope="module")
def ucsb(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureDataModule:
    folder = tmp_path_factory.mktemp("ucsb")
    images = shared / "data/ucsb_breast"
    cache_slides(images / "slides", folder / "cache", mpp=(0.4, 0.8), patch_size=128, assume_mpp=0.2, workers=2)
    how = {
        "columns": {"slide": "image", "group": "tma"}, "classes": ["0", "1"], "fold": 0, "num_workers": 0,
    }  # fmt: skip
    features = _extract(SlideDataModule(folder / "cache", images / "labels.csv", **how), folder)
    return FeatureDataModule(features, images / "labels.csv", batch_size=4, **how)


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_heads_learn_from_features_of_ucsb_slides(head: str, ucsb: FeatureDataModule, tmp_path: Path) -> None:
    _learn(head, ucsb, tmp_path, epochs=15)
