"""best.ckpt is the best epoch by a metric that has values; last.ckpt is the last one."""

import csv
import math
from pathlib import Path

import pytest
import torch
import yaml
from feature_runs import column, epoch_of, files_in, fit, write_config
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from scripted import Scripted
from torch import Tensor
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
    config, run = write_config(tmp_path), tmp_path / "run"
    own = [
        "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_epochs=1", "--trainer.callbacks.save_top_k=-1",
        "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.mode=min",
        f"--trainer.callbacks.dirpath={tmp_path / 'own'}", "--trainer.callbacks.filename=best",
    ]  # fmt: skip
    fit(config, "--model=own_tasks.LowCost", *own)
    assert [epoch_of(path) for path in (run / "best.ckpt", tmp_path / "own/best.ckpt")] == [1, 2]
    recorded = {"epoch": 1, "monitor": "val/cost", "mode": "min", "value": 0.0}
    assert yaml.safe_load((run / "run.yaml").read_text())["best"] == recorded
    for command, *chosen in (["test", "--ckpt_path", "best"], ["test"], ["predict"]):
        main([command, "--config", str(run / "fit.yaml"), *chosen])
        rows = [set((folder / "predictions.csv").read_text().splitlines()) for folder in (run, run / command)]
        assert rows[0] <= rows[1]  # predict has the cases of all splits


def test_best_in_python_is_the_file_of_best_checkpoint(tmp_path: Path) -> None:
    scores = [0.5, 0.9, 0.7]
    loader = DataLoader([torch.ones(1)] * 2)  # type: ignore[arg-type]
    others = [LastCheckpoint(), ModelCheckpoint(), ModelCheckpoint(tmp_path, "low-{epoch}", monitor="val/auc")]
    trainer = Trainer(
        default_root_dir=tmp_path, max_epochs=len(scores), accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[*others, BestCheckpoint("val/auc")],
    )  # fmt: skip
    trainer.fit(Scripted(scores), loader, loader)
    trainer.validate(Scripted(scores + scores), loader, ckpt_path="best", verbose=False)
    assert trainer.ckpt_path == str(tmp_path / "best.ckpt")
    assert epoch_of(tmp_path / "best.ckpt") == 1
    assert [epoch_of(path) for path in tmp_path.glob("low-*.ckpt")] == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["ModelCheckpoint", "dirpath=RUN", "filename=best"], "ModelCheckpoint and BestCheckpoint would both write"),
        (["ModelCheckpoint", "dirpath=RUN/..", "filename=run/best"], "would both write .*/best.ckpt"),
        (["ModelCheckpoint", "dirpath=RUN", "save_last=true"], "ModelCheckpoint and LastCheckpoint would both write"),
        (["BestCheckpoint", "monitor=val/loss"], "there are two BestCheckpoint"),
        (["BestCheckpoint"], "more than one stateful callback of type `BestCheckpoint`: .* one BestCheckpoint already"),
    ],
)
def test_two_callbacks_for_one_file_are_refused_before_anything_is_moved(
    options: list[str], message: str, finished: tuple[Path, Path]
) -> None:
    (config, run), (kind, *arguments) = finished, options
    before = files_in(run)
    words = [f"--trainer.callbacks.{argument}".replace("RUN", str(run)) for argument in arguments]
    with pytest.raises(SystemExit, match=message):
        fit(config, f"--trainer.callbacks+={kind}", *words)
    assert files_in(run) == before


@pytest.mark.parametrize(
    ("task", "metric", "options"),
    [("LowEce", "val/ece", []), ("UnknownCost", "val/cost", ["--checkpoint.mode", "min"])],
)
def test_the_lowest_epoch_is_kept_where_lower_is_better(
    task: str, metric: str, options: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fit(write_config(tmp_path), f"--model=own_tasks.{task}", *options)
    fit(run / "fit.yaml", "--ckpt_path", "last", "--trainer.max_epochs", "4")
    values = column(run, metric)
    assert len(values) == 4
    assert values.index(min(values)) < 2  # before the resumption, which must not forget it
    assert epoch_of(run / "best.ckpt") == values.index(min(values))
    record = yaml.safe_load((run / "run.yaml").read_text())["best"]
    assert (record["monitor"], record["mode"]) == (metric, "min")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("UnknownCost", "it is not known whether a higher or a lower val/cost is better; set mode to max or min"),
        ("HighLoss", "HighLoss: mode is max, but a lower val/loss is better, .* set mode: min"),
    ],
)
def test_a_mode_that_is_unknown_or_wrong_is_refused(task: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=message):
        fit(write_config(tmp_path), f"--model=own_tasks.{task}")
    assert not (tmp_path / "run/run.yaml").exists()


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
    record = yaml.safe_load((run / "run.yaml").read_text())["best"]
    assert (record["epoch"], record["monitor"], record["mode"]) == (losses.index(min(losses)), "val/loss", "min")
    assert record["value"] == pytest.approx(min(losses), abs=1e-6)
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


class _LateScores(Scripted):
    """The AUC is undefined in the first two epochs; the loss is lowest in the first."""

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("val/loss", float(self.current_epoch))


def test_a_resumed_run_goes_on_choosing_by_the_loss(tmp_path: Path, package_log: pytest.LogCaptureFixture) -> None:
    scores = [math.nan, math.nan, 0.9, 0.8]
    loader = DataLoader([torch.ones(1)] * 2)  # type: ignore[arg-type]
    for epochs, resumed in ((2, None), (4, tmp_path / "last.ckpt")):
        best = BestCheckpoint("val/auc")
        trainer = Trainer(
            default_root_dir=tmp_path, max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, callbacks=[best, LastCheckpoint()],
        )  # fmt: skip
        trainer.fit(_LateScores(scores), loader, loader, ckpt_path=resumed)
        assert (best.monitor, best.mode, best.best_model_score) == ("val/loss", "min", 0)
        assert epoch_of(tmp_path / "best.ckpt") == 0
    assert "(it had no value before the run was resumed): best.ckpt is chosen by the lowest" in package_log.text
