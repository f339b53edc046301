"""The README of a study and the summary."""

import shlex
from dataclasses import replace
from pathlib import Path

from e2e_abmilx.cohort import Case
from e2e_abmilx.slides import Resolution
from e2e_abmilx.study.page import Study, commands, write_readme, write_summary
from e2e_abmilx.study.recipe import GENERIC
from e2e_abmilx.study.survey import Cut, Survey
from e2e_abmilx.study.table import Table

SPLITS = ("train", "train", "val", "test")
CASES = [
    Case(f"c{n}", (f"s{n}", f"t{n}"), "ab"[n % 2], split=split, group=f"p{n // 2}", value=n / 2)
    for n, split in enumerate(SPLITS)
]


def _study(folder: Path, **change: object) -> Study:
    table = Table("label", {}, ("a", "b"), {"slide": "Slide", "time": "T"}, ["age"], 9, 1, CASES, [])
    resolutions = {"s0": Resolution(0.25, "aperio header"), "t0": Resolution(0.5, "assumed")}
    survey = Survey(resolutions, [], {}, [("s0", "t0", "the same bytes")], 2)
    recipe = replace(
        GENERIC["classification"],
        slides=str(folder / "my slides"),
        cache=str(folder / "cache"),
        labels=str(folder / "labels.csv"),
        run=str(folder / "run"),
        assume_mpp=0.5,
    )
    complaints = ["case x: no slide 'y' in slides (is it 'z'?)", "slide 'z' in slides has no label"]
    study = Study(
        folder, table, CASES, survey, Cut((0.5, 1.0), 256, [30, 50], {}), recipe, 9, complaints, ["Why? `--x`"]
    )
    return study._replace(**change)


def test_the_readme_says_what_was_recognised() -> None:
    text = write_readme(_study(Path("my study")))
    for part in (
        "slide from 'Slide'; time from 'T' (months); every slide is a case",
        "9, of which 1 repeat others; 4 cases",
        "4, with 8 slides; 4 have several; 2 patients or groups",
        "1 × 0.25, 1 × 0.5 of 2 slides opened; 1 state none",
        "256 px at 0.5 and 1 µm/px, about 40 a slide, counted on 2 slides",
        "- Why? `--x`",
        "| Cases | train | val | test |\n| --- | --: | --: | --: |\n| all | 2 | 1 | 1 |\n| a | 1 | 1 | 0 |\n| b | 1 | 0 | 1 |",
        "## Missing slides\n\n- case x: no slide 'y' in slides (is it 'z'?)",
        "## Slides without label\n\n- slide 'z' in slides has no label",
        "- `s0` and `t0`: the same bytes",
        f"Paths are relative to `{Path.cwd()}`",
    ):
        assert part in text, f"{part!r} is not in\n{text}"
    assert "## Slides that cannot be read" not in text


def test_absolute_paths_work_anywhere(tmp_path: Path) -> None:
    text = write_readme(_study(tmp_path))
    assert "work in any folder" in text
    assert "relative to" not in text


def test_commands_can_be_pasted() -> None:
    found = [shlex.split(command) for command, _ in commands(_study(Path("my study")))]
    assert found[0] == [
        "e2e-abmilx", "cache", "--slides", "my study/my slides", "--out", "my study/cache", "--mpp", "[0.5,1]",
        "--patch_size", "256", "--assume_mpp", "0.5",
    ]  # fmt: skip
    assert [words[1] for words in found if words[1] != "plan"] == ["cache", "fit", "report", "crossval"]
    assert all(words[3] == "my study/config.yaml" for words in found if words[1] in ("fit", "crossval", "plan"))
    split = _study(Path("a"), recipe=replace(GENERIC["classification"], fold=None))
    assert "crossval" not in [command.split()[1] for command, _ in commands(split)]


def test_numbers_are_shown_by_median_and_range() -> None:
    study = _study(Path("a"))
    study = study._replace(table=study.table._replace(target="regression", classes=()))
    assert "| median (range) | 0.25 (0 to 0.5) | 1 (1 to 1) | 1.5 (1.5 to 1.5) |" in write_readme(study)


def test_the_summary_is_short() -> None:
    study = _study(Path("a"))
    text = write_summary(study._replace(complaints=[f"case {n}: no slide" for n in range(40)]))
    assert "case 4: no slide" in text
    assert "case 5: no slide" not in text
    assert "and 35 more, in README.md" in text
    assert text.splitlines()[0] == "a/config.yaml and a/README.md are written"
    assert "Why? `--x`" in text
    assert len(text.splitlines()) < 30
