"""A run's folder holds one complete run; a run that is refused does not move the files of an earlier one."""

from pathlib import Path

import pytest
import yaml
from feature_runs import column, files_in, fit
from lightning.pytorch import Trainer

from e2e_abmilx.main import main
from e2e_abmilx.training.callbacks.run_folder import RunFolder, archive_earlier_run, folder_of

REFUSED = [
    ("--trainer.fast_dev_run", "true"),
    ("--model.encoder.num_featurs", "8"),
    ("--trainer.max_epochs", "many"),
    ("--data.labels", "absent.csv"),
    ("--model.num_outputs", "5"),
    ("--data.classes", "[a,b]"),
    ("--checkpoint.monitor", "val/acu"),
    ("--checkpoint.mode", "min"),
    ("--trainer.enable_checkpointing", "false"),
    ("--model.encoder.num_features", "9"),
    ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/auc"),
    ("--trainer.max_epochs", "0"),
    ("--trainer.limit_train_batches", "0"),
    ("--trainer.limit_val_batches", "0"),
    ("--trainer.check_val_every_n_epoch", "9"),
    ("--trainer.max_epoch", "5"),  # an abbreviation
    ("--model.optimizer.lr", "-1"),
    ("--last_checkpoint.every_n_steps", "0"),
    ("--trainer.gradient_clip_algorithm", "foo"),
]


@pytest.mark.parametrize("options", REFUSED, ids=" ".join)
def test_a_refused_run_moves_nothing(options: tuple[str, ...], finished: tuple[Path, Path]) -> None:
    config, run = finished
    before = files_in(run)
    if options[0] == "--trainer.fast_dev_run":  # not refused, but it keeps nothing
        fit(config, *options)
    else:
        with pytest.raises(SystemExit) as stopped:
            fit(config, *options)
        assert stopped.value.code
    assert files_in(run) == before


def test_a_new_run_archives_all_of_the_old_one(finished: tuple[Path, Path]) -> None:
    config, run = finished
    before = files_in(run)
    fit(config, "--seed_everything", "1")
    assert files_in(run / "earlier-1") == before
    assert not (run / "heatmaps").exists()  # a report would show pictures of another model
    assert yaml.safe_load((run / "fit.yaml").read_text())["seed_everything"] == 1
    assert len(column(run, "val/loss")) == 3


@pytest.mark.slow  # three fits
def test_resuming_the_run_of_another_folder_archives_this_one(finished: tuple[Path, Path], tmp_path: Path) -> None:
    config, run = finished
    before = files_in(run)
    fit(config, "--trainer.default_root_dir", str(tmp_path / "other"))
    fit(config, "--ckpt_path", str(tmp_path / "other/last.ckpt"), "--trainer.max_epochs", "4")
    assert files_in(run / "earlier-1") == before
    assert len(column(run, "val/loss")) == 1  # only the fourth epoch was trained in this folder


def test_folders_of_other_commands_are_archived_with_their_run(finished: tuple[Path, Path]) -> None:
    config, run = finished
    main(["test", "--config", str(config)])
    fit(config)
    assert not (run / "test").exists()
    assert (run / "earlier-1/test/predictions.csv").exists()


def test_archives_are_numbered_and_only_runs_are_archived(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "metrics.csv").write_text(f"rows {number}")
        archive_earlier_run(tmp_path)
        assert (tmp_path / "metrics.csv").exists()  # a folder without a checkpoint holds no run
        (tmp_path / "last.ckpt").touch()
        (tmp_path / "notes.txt").touch()
        archive_earlier_run(tmp_path)
        assert sorted(path.name for path in (tmp_path / f"earlier-{number}").iterdir()) == [
            "last.ckpt", "metrics.csv",
        ]  # fmt: skip
        assert (tmp_path / "notes.txt").exists()  # files of the user stay


def test_a_preempted_run_is_not_archived(tmp_path: Path) -> None:
    for name in ("last.ckpt", "hpc_ckpt_1.ckpt"):
        (tmp_path / name).touch()
    archive_earlier_run(tmp_path)
    assert (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize(("command", "folder"), [("fit", "."), ("test", "test"), (None, ".")])
def test_other_commands_than_fit_write_into_subfolders(command: str | None, folder: str, tmp_path: Path) -> None:
    callbacks = [] if command is None else [RunFolder(command)]
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, callbacks=callbacks)  # type: ignore[arg-type]
    assert folder_of(trainer) == tmp_path / folder


def test_the_maps_of_an_earlier_run_are_archived(tmp_path: Path) -> None:
    (tmp_path / "attention").mkdir()
    (tmp_path / "attention" / "case.npz").touch()
    (tmp_path / "best.ckpt").touch()
    archive_earlier_run(tmp_path)
    assert (tmp_path / "earlier-1/attention/case.npz").exists()
    assert not (tmp_path / "attention").exists()
