"""best.ckpt is the best epoch by a metric that has values; last.ckpt is the last one."""

import csv
from pathlib import Path

import pytest
import torch
import yaml
from feature_runs import column, epoch_of, fit, write_config
from lightning.pytorch import Trainer
from scripted import Scripted
from torch.utils.data import DataLoader

from e2e_abmilx.main import main
from e2e_abmilx.training.callbacks import BestCheckpoint, LastCheckpoint


def test_best_is_the_best_and_last_is_the_last(tmp_path: Path) -> None:
    scores = [0.5, 0.9, 0.9, 0.7]
    loader = DataLoader([torch.ones(1)] * 2)  # type: ignore[arg-type]
    trainer = Trainer(
        default_root_dir=tmp_path, max_epochs=len(scores), accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[BestCheckpoint("val/auc"), LastCheckpoint()],
    )  # fmt: skip
    trainer.fit(Scripted(scores), loader, loader)
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]
    assert epoch_of(tmp_path / "best.ckpt") == 1
    assert epoch_of(tmp_path / "last.ckpt") == 3


def test_steps_between_checkpoints_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="every_n_steps is 0; it counts optimizer steps and must be at least"):
        LastCheckpoint(every_n_steps=0)


def test_best_is_tested_whatever_other_checkpoints_are_kept(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    own = [
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.every_n_epochs=1",
        "--trainer.callbacks.save_top_k=-1",
    ]
    by_loss = ["--checkpoint.monitor", "val/loss", "--trainer.max_epochs", "8", "--model.optimizer.lr", "0.3"]
    fit(config, *own, *by_loss)
    run = tmp_path / "run"
    losses = column(run, "val/loss")
    assert epoch_of(run / "best.ckpt") == losses.index(min(losses))
    assert yaml.safe_load((run / "run.yaml").read_text())["best"]["epoch"] == losses.index(min(losses))
    main(["test", "--config", str(run / "fit.yaml"), "--ckpt_path", str(run / "best.ckpt")])
    assert (run / "test/predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()


@pytest.mark.parametrize(("split", "cases"), [("one class", "all 6 cases are"), ("one case", "its only case is")])
def test_an_auc_that_is_undefined_on_the_split_chooses_nothing(
    split: str, cases: str, tmp_path: Path, package_log: pytest.LogCaptureFixture
) -> None:
    fit(write_config(tmp_path, split=split), "--trainer.max_epochs", "6")
    assert package_log.text.count(f"the val split has no auc, kappa, qwk: {cases} of class") == 1
    assert "TrainerFn" not in package_log.text
    assert "best.ckpt is chosen by the lowest val/loss" in package_log.text
    run = tmp_path / "run"
    losses = column(run, "val/loss")
    assert epoch_of(run / "best.ckpt") == losses.index(min(losses))
    with (run / "metrics.csv").open(newline="") as file:
        aucs = {row["val/auc"] for row in csv.DictReader(file)} - {""}
    assert aucs <= {"nan"}


def test_a_metric_that_is_nan_in_the_first_validation_chooses_nothing(
    tmp_path: Path, package_log: pytest.LogCaptureFixture
) -> None:
    """A batch of one class has no AUC, although the split that it is drawn from has one."""
    fit(write_config(tmp_path), "--trainer.overfit_batches", "1")
    run = tmp_path / "run"
    losses = column(run, "val/loss")
    reason = "val/auc cannot choose a checkpoint (it has no value in epoch 0): best.ckpt is chosen by the lowest"
    assert package_log.text.count(reason) == 1
    assert epoch_of(run / "best.ckpt") == losses.index(min(losses))
