from pathlib import Path

import torch
from lightning.pytorch import Trainer
from scripted import Scripted
from torch.utils.data import DataLoader

from e2e_abmilx.training.callbacks import BestCheckpoint, LastCheckpoint


def test_best_is_the_best_and_last_is_the_last(tmp_path: Path) -> None:
    scores = [0.5, 0.9, 0.9, 0.7]
    loader = DataLoader([torch.ones(1)] * 2)
    trainer = Trainer(
        default_root_dir=tmp_path, max_epochs=len(scores), accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[BestCheckpoint("val/auc"), LastCheckpoint()],
    )  # fmt: skip
    trainer.fit(Scripted(scores), loader, loader)
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]
    assert torch.load(tmp_path / "best.ckpt", weights_only=False)["epoch"] == 1
    assert torch.load(tmp_path / "last.ckpt", weights_only=False)["epoch"] == 3
