"""Fits, and the test of the best checkpoint that follows them."""

from pathlib import Path

import pytest
import yaml
from feature_runs import column, fit, write_config
from slide_runs import message_of

from e2e_abmilx.main import main
from e2e_abmilx.tasks import ClassificationTask


def test_a_fit_without_validation_is_an_error(tmp_path: Path) -> None:
    config = str(write_config(tmp_path))
    short = ["--trainer.max_steps", "1", "--trainer.enable_progress_bar", "true"]
    message = message_of(["fit", "--config", config, *short])
    assert "no checkpoint was chosen, because validation did not run" in message
    never = message_of(["fit", "--config", config, "--trainer.check_val_every_n_epoch", "9"])
    assert "trainer.check_val_every_n_epoch is 9" in never  # refused before training


def test_a_fit_without_test_cases_ends_without_a_test(tmp_path: Path, package_log: pytest.LogCaptureFixture) -> None:
    config, table = write_config(tmp_path), tmp_path / "labels.csv"
    table.write_text(table.read_text().replace(",test", ",train"))
    fit(config, "--trainer.max_epochs", "1")
    assert "no test split: the run ends without a test" in package_log.text
    assert (tmp_path / "run/best.ckpt").exists()
    assert not (tmp_path / "run/predictions.csv").exists()


def test_the_files_of_a_run_are_listed(tmp_path: Path, package_log: pytest.LogCaptureFixture) -> None:
    fit(write_config(tmp_path), "--trainer.max_epochs", "1")
    files = "fit.yaml, run.yaml, splits.csv, best.ckpt, last.ckpt, metrics.csv, hparams.yaml, predictions.csv"
    assert f"{tmp_path / 'run'} holds {files}" in package_log.text


def test_absent_classes_are_left_out_and_named(
    tmp_path: Path, package_log: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(write_config(tmp_path, split="absent class", classes=3), "--trainer.max_epochs", "12")
    for split in ("val", "test"):
        assert f"the {split} split has no case of class 2: AUC" in package_log.text
    assert "the train split" not in package_log.text
    (auc,) = column(tmp_path / "run", "test/auc")
    assert auc == 1  # torchmetrics returns 0.667 for this perfect model
    main(["report", "--runs", str(tmp_path / "run")])
    assert " 1.000" in capsys.readouterr().out


def test_overfitting_a_few_batches(tmp_path: Path) -> None:
    """Lightning then replaces our sampler by one of its own, and each epoch has the same draws."""
    fit(write_config(tmp_path), "--trainer.overfit_batches", "2")
    assert (tmp_path / "run/last.ckpt").exists()


def test_a_stated_sensitivity_is_set_in_yaml_and_kept_by_the_checkpoint(tmp_path: Path) -> None:
    path, run = write_config(tmp_path), tmp_path / "run"
    usual = path.read_text()
    config = yaml.safe_load(usual)
    config["model"]["init_args"]["sensitivity"] = 0.95
    path.write_text(yaml.safe_dump(config))
    fit(path, "--trainer.max_epochs", "1")
    threshold = yaml.safe_load((run / "run.yaml").read_text())["threshold"]
    assert (threshold["rule"], threshold["cases"], threshold["split"]) == ("sensitivity of at least 0.95", 6, "val")
    assert ClassificationTask.load_from_checkpoint(run / "best.ckpt").sensitivity == 0.95
    path.write_text(usual)
    main(["test", "--config", str(path), "--ckpt_path", "best"])  # the model's settings come from the checkpoint
    assert yaml.safe_load((run / "test/test.yaml").read_text())["model"]["init_args"]["sensitivity"] == 0.95
    assert column(run / "test", "test/threshold") == column(run, "test/threshold") == [threshold["value"]]
    refused = message_of(["fit", "--config", str(path), "--model.sensitivity", "95"])
    assert "sensitivity is 95.0; it is a fraction and must lie in (0, 1], such as 0.95" in refused
