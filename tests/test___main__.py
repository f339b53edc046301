"""``python -m e2e_abmilx`` finds classes in the current folder."""

import os
import subprocess
import sys
from pathlib import Path

import yaml
from feature_runs import write_config

_HEAD = """
from e2e_abmilx import ABMIL

class Own(ABMIL):
    pass
"""


def test_a_config_may_name_a_class_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "own_head.py").write_text(_HEAD)
    command = [sys.executable, "-m", "e2e_abmilx", "fit", "--config", str(write_config(tmp_path))]
    command += ["--model.head", "own_head.Own", "--print_config"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["model"]["init_args"]["head"]["class_path"] == "own_head.Own"
