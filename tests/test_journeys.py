"""The journeys of the tutorial with cohorts that people really have: four commands, and no line of a config is edited."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from docs_snippets import ROOT

from e2e_abmilx.main import main
from e2e_abmilx.runs.read import read_run

#: What the page cannot say: no network, and no time.
_MORE = {
    "init": "--pretrained false",
    "plan": "",
    "fit": "--trainer.max_epochs 1 --trainer.check_val_every_n_epoch 1 --trainer.accelerator cpu --data.num_workers 0",
    "report": "",
}


class Journey(NamedTuple):
    """The commands of a journey, and the lines that the page says they print."""

    commands: list[list[str]]
    lines: list[str]


def _read_journey(study: str) -> Journey:
    page = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    start = page.index(f"e2e-abmilx init {study} ")
    end = re.compile("^(?:[*][*]|## )", re.MULTILINE).search(page, start)
    assert end is not None
    commands, _, rest = page[start : end.start()].partition("```")
    lines = re.search("```text\n(.*?)```", rest, re.DOTALL)
    assert lines is not None
    return Journey([shlex.split(line)[1:] for line in commands.splitlines()], lines[1].splitlines())


def _go(words: list[str]) -> None:
    main([*words, *_MORE[words[0]].split()])


def _lay_out_ucsb(shared: Path) -> None:
    Path("labels.csv").symlink_to(shared / "data/ucsb_breast/labels.csv")
    Path("slides").symlink_to(shared / "data/ucsb_breast/slides")


def _lay_out_brca(shared: Path, cohort: Path) -> None:
    """The table, and eight slides of each class and split under the names that it states."""
    table = shared / "data/labels/authors/subtyping_tcga_brca.csv"
    Path(table.name).symlink_to(table)
    some = pd.read_csv(table).groupby(["fold", "label"]).head(8)
    Path("slides").mkdir()
    slides = sorted((cohort / "slides").iterdir())
    for number, name in enumerate(some["slide"]):
        (Path("slides") / f"{name}.tiff").symlink_to(slides[number % len(slides)])


@pytest.fixture(params=["ucsb", "brca"])
def study(request: pytest.FixtureRequest, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a study, in a folder with its table and slides."""
    monkeypatch.chdir(tmp_path)
    if request.param == "ucsb":
        _lay_out_ucsb(shared)
    else:
        _lay_out_brca(shared, request.getfixturevalue("cohort"))
    return str(request.param)


def _plan(study: str, printed: Callable[[], str]) -> Journey:
    """Run the first two commands, and compare what they print with the page."""
    journey = _read_journey(study)
    assert [words[0] for words in journey.commands] == ["init", "plan", "fit", "report"]
    _go(journey.commands[0])
    _go(journey.commands[1])
    text = printed().splitlines()
    assert [line for line in journey.lines if line not in text] == []
    return journey


def test_own_slides_are_planned_with_two_commands(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    _plan(study, lambda: capsys.readouterr().out)


@pytest.mark.slow
def test_own_slides_are_trained_and_reported_with_four(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    journey = _plan(study, lambda: capsys.readouterr().out)
    _go(journey.commands[2])
    _go(journey.commands[3])
    run = read_run(Path(study, "run"))
    assert len(run.predictions) in (12, 16)
    assert Path(study, "run/report.html").is_file()


def test_images_without_a_resolution_are_refused_with_the_cure(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _lay_out_ucsb(shared)
    with pytest.raises(SystemExit, match="assume_mpp"):
        _go(["init", "ucsb", "--labels", "labels.csv", "--slides", "slides/"])
    assert not Path("ucsb").exists()
