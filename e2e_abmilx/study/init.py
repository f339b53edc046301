"""The command ``e2e-abmilx init``: a study folder from a label table and slides."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from e2e_abmilx.cohort import Case, CohortError, CohortPlan, TargetKind, match_slides, spell_classes
from e2e_abmilx.errors import InputError, SlideError
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.slides.slide_files import SlideFile, find_slides
from e2e_abmilx.study.choices import (
    choose_bins,
    choose_folds,
    choose_training,
    doubts_of_cases,
    doubts_of_slides,
    explain_cut,
    split_cases,
)
from e2e_abmilx.study.page import Study, write_readme, write_summary
from e2e_abmilx.study.recipe import Recipe
from e2e_abmilx.study.survey import Cut, Survey, choose_cut, survey_slides
from e2e_abmilx.study.table import Table, read_table

_FILES = ("config.yaml", "README.md")
_SHOWN = 5  # complaints in a message


def init_study(
    study: Path,
    labels: Path,
    slides: Path,
    *,
    columns: dict[str, str | None] | None = None,
    target: TargetKind | None = None,
    classes: list[str | int | float | bool | None] | None = None,
    assume_mpp: float | None = None,
    weights: Path | None = None,
    pretrained: bool = True,
) -> str:
    """Write a study folder from a label table and slides.

    It holds ``config.yaml``, with a reason for each choice, and ``README.md``, with the commands, what was recognised, and
    what is doubtful. Only some of the slides are opened. Paths are written as they are given, so that the commands work
    in the folder where this one is run.

    Args:
        study: Folder to write; no file in it is replaced.
        labels: Label table (CSV), one row per slide or case.
        slides: A folder of slides, a file, or a CSV with a column ``slide`` of paths and, where a slide's own µm/px is
            wrong or missing, ``mpp``.
        columns: The table's names for ``slide``, ``case``, ``patient``, ``label``, ``time``, ``days``, ``event``,
            ``censorship``, ``split``, ``fold`` and ``group``, where they differ from the usual names; null for a column
            that must not be read.
        target: What is to be predicted; by default what the columns allow.
        classes: The classes in order or, for several labels per case, the columns that hold 1 or 0.
        assume_mpp: Level-0 µm per pixel of slides that state none.
        weights: A local file of encoder weights, where ImageNet weights cannot be downloaded.
        pretrained: Start from ImageNet weights, which the first fit downloads.

    Returns:
        A summary.

    Raises:
        CohortError: The table cannot be used, or only a guess could tell what is to be predicted.
        SlideError: There is no slide, or two have the same name.
        InputError: The folder holds a study, no case has slides, or slides state no µm per pixel.
    """
    folder = Path(study)
    _refuse_existing(folder)
    if weights is not None and not Path(weights).is_file():
        raise InputError(f"weights {weights}: there is no such file; check the path")
    table = read_table(Path(labels), columns=_stated(columns), target=target, classes=spell_classes(classes or []))
    recipe = _begin(
        folder,
        table,
        labels=Path(labels).as_posix(),
        slides=Path(slides).as_posix(),
        assume_mpp=assume_mpp,
        weights="" if weights is None else Path(weights).as_posix(),
        pretrained=pretrained,
    )
    found = _look(folder, table, recipe)
    for name, text in zip(_FILES, (found.recipe.render(), write_readme(found)), strict=True):
        with atomic_write(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return write_summary(found)


def _begin(folder: Path, table: Table, **given: Any) -> Recipe:  # noqa: ANN401
    """Return the recipe as far as the table and the options decide it; ``given`` are further values of it."""
    return Recipe(
        title=f"{folder.name}, by e2e-abmilx init; README.md says what was recognised, and what is doubtful",
        usage=(),
        target=table.target,
        outputs=1 if table.target == "regression" else len(table.classes),
        cache=(folder / "cache").as_posix(),
        run=(folder / "run").as_posix(),
        columns=table.columns,
        classes=table.classes,
        **given,
    )


def _look(folder: Path, table: Table, recipe: Recipe) -> Study:
    """Return all that was found in the table and the slides, with the complete recipe."""
    files = find_slides(Path(recipe.slides))
    matched, complaints, survey = _match(table, files, Path(recipe.slides), recipe.assume_mpp)
    cut = choose_cut(_of_cases(files, matched), survey, recipe.assume_mpp)
    if not cut.patches:
        raise InputError(
            f"none of {len(cut.without)} slides that were tried has a patch: {next(iter(cut.without.values()))}"
        )
    recipe = replace(recipe, skip_missing=len(matched) < len(table.cases) or bool(cut.without))
    recipe, cases = _complete(recipe, table, matched, survey, cut)
    doubts = [*table.doubts, *doubts_of_cases(table, cases), *doubts_of_slides(table, matched, survey, cut)]
    return Study(folder, table, cases, survey, cut, recipe, len(files), complaints, doubts)


def _complete(
    recipe: Recipe, table: Table, matched: Sequence[Case], survey: Survey, cut: Cut
) -> tuple[Recipe, list[Case]]:
    """Return the recipe with the values that follow from cases and slides, and the cases with their splits."""
    folds = choose_folds(table, matched)
    recipe = replace(recipe, mpp=cut.mpp, patch_size=cut.patch_size, **folds)
    plan = CohortPlan(
        Path(recipe.labels),
        columns=dict(table.columns) or None,
        target=table.target,
        classes=list(table.classes) or None,
        fold=recipe.fold,
        folds=recipe.folds,
    )
    if table.target == "survival":
        cases, bins = choose_bins(plan, table, matched)
        recipe = replace(recipe, outputs=bins)
    else:
        cases = split_cases(plan, table, matched)
    training = choose_training(table, cases, cut)
    why = {**folds.get("why", {}), **explain_cut(cut, survey), **training.pop("why")}
    if len(matched) < len(table.cases):
        why["skip_missing"] = f"{len(table.cases) - len(matched)} of {len(table.cases)} cases lack slides"
    if recipe.weights or not recipe.pretrained:
        why |= {
            "encoder": "as given to init",
            "lr": "faster where weights are random" if not recipe.weights else "gentle",
        }
    return replace(recipe, **training, why=why), cases


def _refuse_existing(folder: Path) -> None:
    """Refuse a folder that holds a study already, or that is a file."""
    there = [folder / name for name in _FILES if (folder / name).exists()]
    if folder.is_file() or there:
        raise InputError(
            f"{there[0] if there else folder} exists, and init changes no file; choose another folder, or remove that file"
        )


def _stated(columns: Mapping[str, str | None] | None) -> dict[str, str | None]:
    """Return the stated columns; on the command line, null may arrive as a word."""
    nulls = ("", "none", "null")
    return {
        name: None if column is None or column.lower() in nulls else column for name, column in (columns or {}).items()
    }


def _of_cases(files: Sequence[SlideFile], cases: Sequence[Case]) -> list[SlideFile]:
    names = {slide for case in cases for slide in case.slides}
    return [file for file in files if file.name in names]


def _match(
    table: Table, files: Sequence[SlideFile], slides: Path, assume_mpp: float | None
) -> tuple[list[Case], list[str], Survey]:
    """Return the cases that have all of their slides, the complaints, and what a look at the slides has found.

    Raises:
        InputError: No case has slides that can be read, or slides state no µm per pixel.
    """
    matched, complaints = match_slides(table.cases, [file.name for file in files], slides)
    if not matched:
        raise CohortError(
            "\n  ".join([f"none of {len(table.cases)} cases has slides in {slides}:", *complaints[:_SHOWN]])
        )
    survey = survey_slides(_of_cases(files, matched), assume_mpp)
    if survey.unstated:
        opened = len(survey.resolutions) + len(survey.unstated)
        raise SlideError(
            f"{len(survey.unstated)} of {opened} slides that were opened state no µm per pixel, first"
            f" {survey.unstated[0]!r}; give --assume_mpp, for example 0.25 if they were scanned at 40x, or name a CSV with"
            " the columns slide and mpp as --slides"
        )
    readable = [case for case in matched if not survey.unreadable.keys() & set(case.slides)]
    if not readable:
        raise SlideError(f"no slide can be read; the first: {next(iter(survey.unreadable.values()))}")
    return readable, complaints, survey
