"""Every Python block and every command of the README runs, and its links lead to files."""

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from docs_snippets import ROOT, SHORTER, Snippet, prepare, run, run_command
from local_bucket import FaultProxy, make_bucket
from node_runs import SLURM_SCRIPT, submit, wait_for

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [line for language, text in BLOCKS if language == "console" for line in text.splitlines()]


@pytest.fixture(scope="module")
def material(cohort: Path, stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the slides and labels that the README names."""
    folder = tmp_path_factory.mktemp("material")
    prepare(folder, cohort, stores)
    return folder


def test_every_block_is_run_by_these_tests() -> None:
    assert len(BLOCKS) * 2 == len(re.findall(r"^ *```", TEXT, re.MULTILINE))
    assert {language for language, _ in BLOCKS} <= {"python", "console"}
    assert all(line.startswith("$ ") for line in COMMANDS)
    assert PYTHON
    assert COMMANDS


def test_python_blocks_run(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shutil.copytree(material, tmp_path / "study", symlinks=True))
    names: dict[str, object] = {}
    for text in PYTHON:
        run(Snippet("python", text, title="", mark=""), names)
    assert names["logits"].shape == (4, 2)  # type: ignore[attr-defined]
    assert names["attention"].shape == (4, 8, 500)  # type: ignore[attr-defined]


def test_commands_run_one_after_the_other(
    material: Path, bucket: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bucket(bucket, "mine")
    monkeypatch.chdir(shutil.copytree(material, tmp_path / "study", symlinks=True))
    for command in COMMANDS:
        program, *words = shlex.split(command.removeprefix("$ "))
        if program == "e2e-abmilx":
            run_command(words)
        elif program == "sbatch":
            _run_job(*words)
        else:
            assert program == "pip", command
    assert Path("my_study/run/report.html").is_file()
    assert Path("out/predictions.csv").is_file()
    assert Path("out/heatmaps/slide/overlay.png").is_file()
    assert len(pd.read_csv("runs/mine/predictions.csv")) == len(pd.read_csv("my_study/run/predictions.csv"))


def _run_job(script: str, config: str, run: str, *options: str) -> None:
    assert script == str(SLURM_SCRIPT.relative_to(ROOT))
    copy = shutil.copy(config, "config.yaml")
    ended = wait_for(submit([copy, run, *options, *shlex.split(SHORTER["fit"])], Path(copy).absolute()), Path())
    assert ended.status == 0, Path("task-0").read_text()[-3000:]


def test_the_two_commands_are_those_of_ci() -> None:
    commands = [command.removeprefix("$ ") for command in COMMANDS if command.startswith("$ pip")]
    assert commands == [
        "pip install -e . && e2e-abmilx fit --config configs/demo.yaml",
        'pip install -e ".[test]" && pytest -n 2 --dist loadfile',
    ]
    assert commands[1] in (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert (ROOT / "configs/demo.yaml").is_file()


def test_links_lead_to_files() -> None:
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", TEXT) if not target.startswith("https://")]
    assert [target for target in targets if not (ROOT / target.partition("#")[0]).exists()] == []
