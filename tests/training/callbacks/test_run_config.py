"""The config of a run is in its folder, whatever the logger is."""

from pathlib import Path

import pytest
from feature_runs import fit, write_config

from e2e_abmilx.main import main


@pytest.mark.parametrize("logger", ["TensorBoardLogger", "false"])
def test_any_logger(logger: str, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    options = [f"--trainer.logger={logger}"]
    if logger == "TensorBoardLogger":
        pytest.importorskip("tensorboard")
        options.append(f"--trainer.logger.save_dir={tmp_path / 'elsewhere'}")
    main(["fit", "--config", str(config), *options])
    run = tmp_path / "run"
    expected = {"fit.yaml", "run.yaml", "splits.csv", "best.ckpt", "last.ckpt", "predictions.csv", "figures"}
    assert expected <= {path.name for path in run.iterdir()}
    before = (run / "predictions.csv").read_bytes()
    main(["test", "--config", str(run / "fit.yaml"), "--ckpt_path", str(run / "best.ckpt")])
    assert (run / "predictions.csv").read_bytes() == before
    assert (run / "test/predictions.csv").read_bytes() == before  # the fit tested best.ckpt
    assert (run / "test/test.yaml").exists()


def test_a_refused_run_leaves_no_config(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        fit(write_config(tmp_path), "--model.num_outputs", "5")
    assert not list((tmp_path / "run").glob("*.yaml"))
