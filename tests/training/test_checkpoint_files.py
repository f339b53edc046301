"""--ckpt_path means an existing checkpoint, and no command but fit starts from random weights."""

from pathlib import Path

import pytest
from feature_runs import column, fit, write_config

from e2e_abmilx.main import main
from e2e_abmilx.training.checkpoint_files import find_checkpoint


def test_best_and_last_are_checkpoints_of_the_run(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """In a new process Lightning's own "last" finds none, warns, and starts from random weights."""
    config, run = finished
    losses = column(run, "val/loss")
    fit(config, "--ckpt_path", "last", "--trainer.max_epochs", "5")
    assert column(run, "val/loss")[:3] == losses
    assert len(column(run, "val/loss")) == 5
    assert not (run / "earlier-1").exists()
    for chosen in (["--ckpt_path", "best"], []):
        main(["test", "--config", str(config), *chosen])
        assert (run / "test/predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()


@pytest.mark.parametrize(
    ("command", "checkpoint", "message"),
    [
        ("test", None, "test needs a trained model"),
        ("validate", None, "validate needs a trained model"),
        ("predict", None, "predict needs a trained model"),
        ("test", "last", "there is no checkpoint .*last.ckpt; check the path"),
        ("fit", "last", "there is no checkpoint .*last.ckpt; check the path"),
        ("fit", "absent.ckpt", "there is no checkpoint absent.ckpt"),
        ("fit", "labels.csv", "labels.csv is not a checkpoint"),
    ],
)
def test_no_model_is_untrained_by_mistake(
    command: str, checkpoint: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        main([command, "--config", str(config), *(["--ckpt_path", checkpoint] if checkpoint else [])])


def test_a_missing_checkpoint_is_reported_with_those_that_exist(tmp_path: Path) -> None:
    for name in ("b.ckpt", "a.ckpt"):
        (tmp_path / name).touch()
    with pytest.raises(Exception, match=r"there is no checkpoint .*c\.ckpt; .* has a\.ckpt, b\.ckpt"):
        find_checkpoint(str(tmp_path / "c.ckpt"), tmp_path)


def test_lightning_resolves_folders_and_urls(tmp_path: Path) -> None:
    for stated in (None, "hpc", str(tmp_path), "https://example.org/model.ckpt"):
        assert find_checkpoint(stated, tmp_path / "run") == stated
