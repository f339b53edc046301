"""Folder, logger, precision and progress of a run, where the config leaves them open."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import TQDMProgressBar

from e2e_abmilx.errors import InputError
from e2e_abmilx.training.callbacks import FeatureWriter, ProgressLines
from e2e_abmilx.training.callbacks.run_folder import RunFolder
from e2e_abmilx.training.callbacks.same_files import SameFiles
from e2e_abmilx.training.loggers import RunLogger
from e2e_abmilx.training.precision import best_precision
from e2e_abmilx.training.trainer_defaults import trainer_defaults


def _settings(run: Path | None, **stated: object) -> Any:
    open_ = dict.fromkeys(("logger", "enable_checkpointing", "callbacks", "precision", "enable_progress_bar"))
    return SimpleNamespace(**{"default_root_dir": run, "accelerator": "cpu", **open_, **stated})


def test_all_that_is_open_is_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    defaults = trainer_defaults(_settings(None), "fit", None)
    assert defaults["default_root_dir"] == "runs/fit"
    assert (tmp_path / "runs/fit").is_dir()
    assert isinstance(defaults["logger"], RunLogger)
    assert defaults["precision"] == best_precision("cpu")
    assert [type(callback) for callback in defaults["callbacks"]] == [RunFolder, SameFiles, ProgressLines]


def test_what_is_stated_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    own = TQDMProgressBar()
    stated = _settings(tmp_path, logger=False, precision="16-mixed", callbacks=own)
    defaults = trainer_defaults(stated, "test", None)
    assert "logger" not in defaults
    assert "precision" not in defaults
    assert defaults["callbacks"][2:] == [own]
    silent = trainer_defaults(_settings(tmp_path, enable_progress_bar=False), "test", None)
    assert [type(callback) for callback in silent["callbacks"]] == [RunFolder, SameFiles]


def test_features_are_written_in_float32(tmp_path: Path) -> None:
    defaults = trainer_defaults(_settings(tmp_path, callbacks=[FeatureWriter()]), "predict", None)
    assert defaults["precision"] == "32-true"


def test_a_checkpoint_in_the_folder_resumes_its_run(tmp_path: Path) -> None:
    for checkpoint, resume in ((None, False), ("run/last.ckpt", True), ("other/last.ckpt", False)):
        path = None if checkpoint is None else str(tmp_path / checkpoint)
        defaults = trainer_defaults(_settings(tmp_path / "run"), "fit", path)
        assert defaults["logger"].resume == defaults["callbacks"][0].resume == resume


def test_a_run_needs_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="enable_checkpointing is false"):
        trainer_defaults(_settings(tmp_path, enable_checkpointing=False), "fit", None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    for run in (locked, locked / "run"):
        with pytest.raises(InputError, match=r"Permission denied.*set trainer.default_root_dir"):
            trainer_defaults(_settings(run), "fit", None)


def test_a_folder_in_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"set trainer\.default_root_dir"):
        trainer_defaults(_settings(tmp_path / "file/run"), "fit", None)
