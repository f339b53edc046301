"""A small encoder, head, bag, data module and trainer for the tests of tasks."""

from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.heads import ABMILX
from e2e_abmilx.tasks import BagTask
from e2e_abmilx.training.callbacks import BestCheckpoint


class MeanColour(nn.Module):
    """An encoder with simple features: the mean colour, times a weight."""

    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, patches: Tensor) -> Tensor:
        return patches.mean((2, 3)) * self.weight


def small_head(in_features: int, num_outputs: int) -> ABMILX:
    return ABMILX(in_features, num_outputs, hidden_features=16, num_heads=2, dropout=0.0)


def bag_of(lengths: list[int], *, label: int = 0) -> Bag:
    torch.manual_seed(1)
    size, longest = len(lengths), max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    patches = torch.randint(0, 256, (size, longest, 3, 8, 8), dtype=torch.uint8) * mask[..., None, None, None]
    zeros = torch.zeros(size, longest, dtype=torch.long)
    return Bag(
        patches, mask, zeros, torch.stack([zeros, zeros], -1), torch.full((size,), label), torch.rand(size) * 40,
        torch.ones(size, dtype=torch.long), tuple(map(str, range(size))), True,
    )  # fmt: skip


def small_data(cohort: Path, stores: Path, **how: object) -> SlideDataModule:
    settings = {"columns": {"label": "lesion"}, "patches_per_bag": 6, "batch_size": 3, "num_workers": 0, **how}
    return SlideDataModule(stores, cohort / "labels.csv", **settings)  # type: ignore[arg-type]


def small_trainer(folder: Path, **how: object) -> Trainer:
    return Trainer(
        default_root_dir=folder, max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **how,  # type: ignore[arg-type]
    )  # fmt: skip


def fit(task: BagTask, cohort: Path, stores: Path, folder: Path, **data: object) -> Trainer:
    how = {"patches_per_bag": 8, "batch_size": 2, "num_workers": 0, **data}
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[BestCheckpoint()],
    )
    trainer.fit(task, SlideDataModule(stores, cohort / "labels.csv", **how))  # type: ignore[arg-type]
    return trainer
