"""Fixtures of runs on features, which take seconds."""

import logging
import shutil
from pathlib import Path

import pytest
from feature_runs import fit, write_config


@pytest.fixture
def package_log(clean_log: None, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of the package, which does not reach the root logger, as on the command line."""
    log = logging.getLogger("e2e_abmilx")
    log.addHandler(caplog.handler)
    log.propagate = False
    log.setLevel(logging.INFO)
    return caplog


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with a heatmap; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    fit(write_config(folder))
    (folder / "run/heatmaps/s00").mkdir(parents=True)
    (folder / "run/heatmaps/s00/overlay.png").write_bytes(b"a picture")
    return folder / "run"


@pytest.fixture
def finished(finished_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A config, and the folder of its finished run."""
    shutil.copytree(finished_run, tmp_path / "run")
    return write_config(tmp_path), tmp_path / "run"
