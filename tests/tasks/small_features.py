"""A cohort of extracted features, with data modules and a trainer, for tests in which pixels do not matter."""

from pathlib import Path

import torch
from lightning.pytorch import Trainer

from e2e_abmilx.datamodules import FeatureDataModule
from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.heads import ABMILX
from e2e_abmilx.tasks import BagTask, ClassificationTask

WIDTH = 4


def write_features(folder: Path, cases: int = 16, prefix: str = "s", seed: int = 0) -> Path:
    """Write a slide of six patches per case, and labels.csv: two classes, times, a bit, a value, splits."""
    generator = torch.Generator().manual_seed(seed)
    (folder / "features").mkdir(parents=True, exist_ok=True)
    lines = ["slide,label,time,event,bit,value,split"]
    for k in range(cases):
        torch.save(torch.randn(6, WIDTH, generator=generator), folder / "features" / f"{prefix}{k}.pt")
        label, split = ("no", "yes")[k // 4 % 2], ("train", "train", "val", "test")[k % 4]
        lines.append(f"{prefix}{k},{label},{k + 1},1,{k % 3 % 2},{k / 2},{split}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def feature_data(folder: Path, table: str = "labels.csv", **how: object) -> FeatureDataModule:
    settings = {"num_workers": 0, "batch_size": 2, **how}
    return FeatureDataModule(folder / "features", folder / table if table else None, **settings)  # type: ignore[arg-type]


def feature_head(in_features: int, num_outputs: int) -> ABMILX:
    return ABMILX(in_features, num_outputs, hidden_features=8, num_heads=2, dropout=0.0)


def feature_task(kind: type[BagTask] = ClassificationTask, outputs: int = 2) -> BagTask:
    torch.manual_seed(0)
    return kind(Precomputed(WIDTH), feature_head, outputs)


def quiet_trainer(folder: Path, epochs: int = 1, **how: object) -> Trainer:
    return Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **how,  # type: ignore[arg-type]
    )  # fmt: skip
