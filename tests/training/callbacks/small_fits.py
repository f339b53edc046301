"""Fits of one epoch on features, without the command line."""

from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import nn

from e2e_abmilx.datamodules import FeatureDataModule
from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.heads import ABMILX
from e2e_abmilx.tasks import ClassificationTask


def make_data(folder: Path, *, cases: int = 30, overflowing: str = "") -> FeatureDataModule:
    """Write features of cases s00, s01, …, the first four for validation; those of one case may overflow."""
    torch.manual_seed(0)
    (folder / "features").mkdir()
    lines = ["slide,label,split"]
    for number in range(cases):
        name = f"s{number:02d}"
        features = torch.randn(4, 6)
        if name == overflowing:
            features[2] = 3e38  # finite, but sums of such values are not
        torch.save(features, folder / f"features/{name}.pt")
        lines.append(f"{name},{number % 2},{'val' if number < 4 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return FeatureDataModule(folder / "features", folder / "labels.csv", num_workers=0)


def make_task(encoder: nn.Module | None = None, **how: object) -> ClassificationTask:
    """Return a task of two classes."""
    return ClassificationTask(
        encoder or Precomputed(6),
        lambda width, outputs: ABMILX(width, outputs, hidden_features=8, num_heads=2),
        2,
        **how,  # type: ignore[arg-type]
    )


def make_trainer(folder: Path, *callbacks: object) -> Trainer:
    """Return a trainer of one epoch on the CPU."""
    return Trainer(
        default_root_dir=folder, max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),  # type: ignore[arg-type]
    )  # fmt: skip
