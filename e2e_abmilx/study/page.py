"""What a study's README and the summary say: the commands, what was recognised, and what is doubtful."""

import importlib.util
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from e2e_abmilx.cohort import SPLITS, Case
from e2e_abmilx.cohort.survival import DAYS_PER_MONTH
from e2e_abmilx.study.choices import count_outcomes
from e2e_abmilx.study.recipe import Recipe, render
from e2e_abmilx.study.survey import Cut, Survey
from e2e_abmilx.study.table import Table

_NOTES = {
    "time": " (months)",
    "days": f" (days, divided by {DAYS_PER_MONTH})",
    "event": " (1 = happened)",
    "censorship": " (1 = censored)",
}
_KINDS = {
    "label": "classification, {n} classes",
    "multi_label": "several labels per case, {n} classes",
    "survival": "survival",
    "regression": "regression, a number per case",
}
_LISTED = 50  # missing or unlabelled slides in the README
_SHOWN = 5  # of them in the summary


class Study(NamedTuple):
    """Everything that is known about a study.

    Attributes:
        folder: Its folder.
        table: The label table.
        cases: The cases with slides, with the splits that a fit will use.
        survey: What a look at the slides has found.
        cut: How the slides are cut.
        recipe: The config.
        num_slides: Number of slides that were found.
        complaints: One line for each slide that is missing or has no label.
        doubts: Questions, each with the option that answers it.
    """

    folder: Path
    table: Table
    cases: list[Case]
    survey: Survey
    cut: Cut
    recipe: Recipe
    num_slides: int
    complaints: list[str]
    doubts: list[str]


def write_readme(study: Study) -> str:
    """Return the text of the README."""
    recipe = study.recipe
    paths = [recipe.cache, recipe.slides, recipe.labels, recipe.run]
    anywhere = all(Path(path).is_absolute() for path in paths)
    where = f"Paths are relative to `{Path.cwd()}`, where `init` was run; run the commands there:"
    missing = [line for line in study.complaints if not line.endswith("has no label")]
    unlabelled = [line for line in study.complaints if line.endswith("has no label")]
    there = [split for split in SPLITS if any(case.split == split for case in study.cases)]
    return render(
        "readme.md.jinja",
        name=study.folder.name,
        about=f"Made by `e2e-abmilx init` from `{recipe.labels}` and `{recipe.slides}`: {_describe_target(study.table)}.",
        where="All paths are absolute, so that the commands work in any folder:" if anywhere else where,
        commands=commands(study),
        doubts=study.doubts,
        facts=_facts(study),
        splits=there,
        counts=_count_table(study, there),
        lists=[
            ("Missing slides", _shorten(missing)),
            ("Slides without label", _shorten(unlabelled)),
            ("Slides that cannot be read", _shorten([*study.survey.unreadable.values()])),
            ("Slides that may be copies", _shorten([f"`{a}` and `{b}`: {how}" for a, b, how in study.survey.copies])),
        ],
    )


def write_summary(study: Study) -> str:
    """Return a short summary, for the terminal."""
    lines = [f"{study.folder / 'config.yaml'} and {study.folder / 'README.md'} are written"]
    lines += [f"  {name}: {found}" for name, found in _facts(study)]
    lines += [f"  {line}" for line in study.complaints[:_SHOWN]]
    if len(study.complaints) > _SHOWN:
        lines.append(f"  and {len(study.complaints) - _SHOWN} more, in README.md")
    lines += ["doubtful:", *(f"  - {doubt}" for doubt in study.doubts)] if study.doubts else []
    return "\n".join([*lines, "next:", *(f"  {command}" for command, _ in commands(study))])


def commands(study: Study) -> list[tuple[str, str]]:
    """Return the commands of a study, ready to be pasted, each with its meaning."""
    recipe, config = study.recipe, shlex.quote(str(study.folder / "config.yaml"))
    mpp = ",".join(f"{scale:g}" for scale in recipe.mpp)
    cache = f"e2e-abmilx cache --slides {shlex.quote(recipe.slides)} --out {shlex.quote(recipe.cache)} --mpp '[{mpp}]'"
    cache += f" --patch_size {recipe.patch_size}"
    cache += "" if recipe.assume_mpp is None else f" --assume_mpp {recipe.assume_mpp:g}"
    found = [(cache, "fit does this too, where it is missing")]
    if importlib.util.find_spec("e2e_abmilx.study.plan"):
        found.append((f"e2e-abmilx plan --config {config}", "GB, hours and memory beforehand"))
    found += [
        (f"e2e-abmilx fit --config {config}", "train, choose by validation, test"),
        (f"e2e-abmilx report --runs {shlex.quote(recipe.run)} --html true", "measures and figures"),
    ]
    if recipe.fold is not None:
        folder = shlex.quote(str(study.folder / "crossval"))
        words = f"e2e-abmilx crossval --config {config} --trainer.default_root_dir {folder}"
        found.append((words, f"instead of fit: all {recipe.folds} folds"))
    return found


def _facts(study: Study) -> list[tuple[str, str]]:
    """Return what was recognised, each with its name."""
    table, cases = study.table, study.cases
    slides = sum(len(case.slides) for case in cases)
    several = sum(len(case.slides) > 1 for case in cases)
    groups = len({case.group or case.id for case in cases})
    columns = [f"{name} from {title!r}{_NOTES.get(name, '')}" for name, title in table.titles.items()]
    columns += ["every slide is a case"] if "case" not in table.titles else []
    repeated = f", of which {table.repeated} repeat others" if table.repeated else ""
    return [
        ("target", _describe_target(table)),
        ("columns", "; ".join(columns)),
        *([("columns that are not read", ", ".join(map(repr, table.unread[:20])))] if table.unread else []),
        ("rows", f"{table.rows}{repeated}; {len(table.cases)} cases"),
        (
            "cases with slides",
            f"{len(cases)}, with {slides} slides; {several} have several; {groups} patients or groups",
        ),
        ("splits", _describe_splits(study)),
        ("slides", f"{study.num_slides} found, {slides} used"),
        ("µm per pixel", _describe_resolution(study.survey)),
        ("patches", _describe_cut(study.cut)),
    ]


def _describe_target(table: Table) -> str:
    kind = _KINDS[table.target].format(n=len(table.classes))
    return f"{kind} ({', '.join(table.classes)})" if table.classes else kind


def _describe_splits(study: Study) -> str:
    recipe = study.recipe
    if recipe.fold is None:
        held_out = not any(case.split == "val" for case in study.table.cases)
        return "as the table states" + ("; an eighth of the training cases validates" if held_out else "")
    own = any(case.split for case in study.table.cases)
    return f"{recipe.folds} folds {'of the table' if own else 'made, balanced by outcome'}; fold {recipe.fold} tests"


def _describe_resolution(survey: Survey) -> str:
    values = Counter(f"{found.mpp:.3g}" for found in survey.resolutions.values())
    assumed = sum(found.source == "assumed" for found in survey.resolutions.values())
    listed = ", ".join(f"{count} × {value}" for value, count in values.most_common(5))
    more = f" and {len(values) - 5} other values" if len(values) > 5 else ""
    return f"{listed}{more} of {len(survey.resolutions)} slides opened; {assumed} state none"


def _describe_cut(cut: Cut) -> str:
    fine, coarse = cut.mpp
    return (
        f"{cut.patch_size} px at {fine:g} and {coarse:g} µm/px, about {cut.median} a slide, counted on"
        f" {len(cut.patches)} slides"
    )


def _count_table(study: Study, splits: Sequence[str]) -> list[list[str]]:
    """Return the rows of the table of cases: outcomes by split; for regression the median and the range."""
    parts = [[case for case in study.cases if case.split == split] for split in splits]
    rows = [["all", *(str(len(part)) for part in parts)]]
    if study.table.target == "regression":
        spans = [sorted(case.value for case in part) for part in parts]
        return [*rows, ["median (range)", *(f"{statistics.median(v):g} ({v[0]:g} to {v[-1]:g})" for v in spans)]]
    names = count_outcomes(study.table, study.cases)
    counts = [count_outcomes(study.table, part) for part in parts]
    return [*rows, *([name, *(str(count[name]) for count in counts)] for name in names)]


def _shorten(lines: Sequence[str]) -> list[str]:
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return [*lines[:_LISTED], *more]
