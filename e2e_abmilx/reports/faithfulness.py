"""Faithfulness of the heatmaps of tested cases: areas under deletion and insertion curves, figures, and what they say."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation import plots
from e2e_abmilx.evaluation.bootstrap import Estimate, bootstrap
from e2e_abmilx.evaluation.estimators import RowMean
from e2e_abmilx.evaluation.faithfulness import DELETED, INSERTED
from e2e_abmilx.reports.figures import Drawing, axes_of_page, drawing_of
from e2e_abmilx.reports.page_table import Table
from e2e_abmilx.reports.report import Report
from e2e_abmilx.reports.tables import with_interval
from e2e_abmilx.runs.read import Run

_DELETION = [f"deletion_{percent}" for percent in DELETED]
_INSERTION = [f"insertion_{percent}" for percent in INSERTED]
_COLUMNS = {"case", "map", "score", "deletion", "insertion", "auc", *_DELETION, *_INSERTION}
_WORDS = {"attention": "attention", "contribution": "contributions"}


class MapAreas(NamedTuple):
    """The faithfulness of one map over cases.

    Attributes:
        deletion: Mean area under the deletion curves.
        insertion: Mean area under the insertion curves.
        deletion_gain: Area of the random map minus that of the map; positive for a faithful one.
        insertion_gain: Area of the map minus that of the random map; positive for a faithful one.
        auc: Mean AUC against the true patches; NaN without truth.
        cases_with_truth: Number of predictions whose AUC is defined.
    """

    deletion: Estimate
    insertion: Estimate
    deletion_gain: Estimate
    insertion_gain: Estimate
    auc: Estimate
    cases_with_truth: int


class FaithfulnessSection(NamedTuple):
    """What a page shows of the faithfulness of the heatmaps of some runs.

    Attributes:
        table: Areas of each map.
        sentences: What they say.
        drawings: The mean curves.
    """

    table: Table
    sentences: list[str]
    drawings: list[Drawing]


def read_faithfulness(run: Run) -> pd.DataFrame:
    """Return ``faithfulness.csv`` of a run, one row per case and map; empty if the run has none.

    :class:`~e2e_abmilx.training.callbacks.Faithfulness` describes its columns.

    Raises:
        InputError: It is damaged, or of other cases than ``predictions.csv``.
    """
    path = run.folder / "faithfulness.csv"
    if not path.is_file():
        return pd.DataFrame()
    text = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := sorted(_COLUMNS - set(text)):
        raise InputError(f"{path} has no column {', '.join(missing)}; test again with the callback Faithfulness")
    numbers = ["deletion", "insertion", "auc", *_DELETION, *_INSERTION]
    text[numbers] = text[numbers].apply(pd.to_numeric, errors="coerce")
    undefined = text["case"][text[["deletion", "insertion"]].isna().any(axis=1)]
    if len(undefined):
        raise InputError(f"{path} has no areas of case {undefined.iloc[0]}; test again with the callback Faithfulness")
    for of_map, rows in text.groupby("map"):
        _refuse_other_cases(path, str(of_map), rows["case"], run.predictions.index)
    return text


def measure_maps(table: pd.DataFrame) -> dict[str, MapAreas]:
    """Measure each map over all cases, by its name; intervals are by the bootstrap over cases."""
    random = table[table["map"] == "random"].reset_index(drop=True)
    return {
        name: _areas(rows.reset_index(drop=True), random)
        for name in ("attention", "contribution", "random")
        if len(rows := table[table["map"] == name])
    }


def describe_map(name: str, areas: MapAreas, score: str) -> str:
    """Say in a sentence whether a map is better than a random order, by the intervals of the differences."""
    gains = {"deletion": areas.deletion_gain, "insertion": areas.insertion_gain}
    if any(math.isnan(gain.low) for gain in gains.values()):
        return f"{_WORDS[name].capitalize()}: too few cases to tell a map from a random order."
    better = [way for way, gain in gains.items() if gain.low > 0]
    worse = [way for way, gain in gains.items() if gain.high < 0]
    start = f"{_WORDS[name].capitalize()}:"
    if len(better) == 2:
        return (
            f"{start} better than a random order. Removing the patches that it ranks highest lowers the {score} more than removing random"
            " ones, and adding them first raises it more."
        )
    if worse:
        return (
            f"{start} worse than a random order in {' and '.join(worse)}; it does not show what the {score} comes from."
        )
    if better:
        (other,) = set(gains) - set(better)
        return f"{start} better than a random order in {better[0]}, and not in {other}."
    return f"{start} no better than a random order; do not read it as an explanation of the {score}."


def describe_truth(name: str, auc: Estimate) -> str:
    """Say in a sentence whether a map ranks true patches above others, by the interval of its AUC."""
    start = f"By {_WORDS[name]}, true patches rank"
    if math.isnan(auc.low):
        return f"By {_WORDS[name]}: too few cases to tell whether true patches rank above others."
    if auc.low > 0.5:
        return f"{start} above others (AUC {auc.point:.3f})."
    if auc.high >= 0.5:
        return f"{start} no higher than others (AUC {auc.point:.3f})."
    why = (
        ": a patch with attention contributes less than 0 where its evidence is below the weighted mean of the case, even"
        " if it is a true one"
    )
    return f"{start} below others (AUC {auc.point:.3f}){why if name == 'contribution' else ''}."


def faithfulness_sections(report: Report) -> list[FaithfulnessSection]:
    """Return what the page shows of each set of runs that has measured its heatmaps; runs are taken together."""
    return [
        _section(name, table)
        for name, summary in report.summaries.items()
        if len(table := _read_all(summary.runs))
    ]  # fmt: skip


def _read_all(runs: Sequence[Run]) -> pd.DataFrame:
    tables = [table.assign(run=place) for place, run in enumerate(runs) if len(table := read_faithfulness(run))]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _section(name: str, table: pd.DataFrame) -> FaithfulnessSection:
    measured, score = measure_maps(table), _score(table)
    sentences = []
    for of_map, areas in measured.items():
        if of_map != "random":
            truth = [describe_truth(of_map, areas.auc)] if areas.cases_with_truth else []
            sentences.append(" ".join([describe_map(of_map, areas, score), *truth]))
    drawings = list(_draw(table, score, name))
    return FaithfulnessSection(_tabulate(name, table["case"].nunique(), measured), sentences, drawings)


def _tabulate(name: str, cases: int, measured: Mapping[str, MapAreas]) -> Table:
    counted = measured["random"].cases_with_truth
    head = ["map", "deletion", "random − map", "insertion", "map − random", *(["AUC of true patches"] * bool(counted))]
    rows = []
    for of_map, areas in measured.items():
        gains = [areas.deletion_gain, areas.insertion_gain]
        lower, higher = ["–", "–"] if of_map == "random" else map(with_interval, gains)
        row = [of_map, with_interval(areas.deletion), lower, with_interval(areas.insertion), higher]
        auc = "0.500" if of_map == "random" else with_interval(areas.auc)  # without an interval, as it is not measured
        rows.append([*row, *([auc] * bool(counted))])
    caption = f"{name}: areas under the curves" if name else "Areas under the curves"
    known = f"; true patches are known of {counted}" if counted else ""
    return Table(f"{caption} of {cases} cases, with 95 % intervals{known}", head, rows)


def _areas(rows: pd.DataFrame, random: pd.DataFrame) -> MapAreas:
    keys = ["run", "case"] if "run" in rows else ["case"]
    both = rows.merge(random, on=keys, suffixes=("", "_random"), validate="one_to_one")

    def mean(value: pd.Series) -> Estimate:
        """Return the mean over the rows where the value is defined; of the areas it is defined in all."""
        return bootstrap(RowMean(value.fillna(0), value.notna()), both["case"].tolist())

    return MapAreas(
        mean(both["deletion"]),
        mean(both["insertion"]),
        mean(both["deletion_random"] - both["deletion"]),
        mean(both["insertion"] - both["insertion_random"]),
        mean(both["auc"]),
        int(both["auc"].notna().sum()),
    )


def _draw(table: pd.DataFrame, score: str, name: str) -> Iterator[Drawing]:
    ways = (
        ("Deletion", "removed", DELETED, _DELETION, "The faster the score falls, the more faithful the map."),
        ("Insertion", "added", INSERTED, _INSERTION, "The faster the score rises, the more faithful the map."),
    )
    for title, change, percent, columns, caption in ways:
        curves = {str(of_map): rows[columns].mean().to_numpy() for of_map, rows in table.groupby("map")}
        axes = plots.plot_patch_removal(curves, percent, change=change, score=score, axes=axes_of_page())
        yield drawing_of(axes, title, name, f"Mean over cases. {caption}")


def _score(table: pd.DataFrame) -> str:
    """Return the watched score in words."""
    scores = sorted(set(table["score"]))
    if all(name.startswith("probability_") for name in scores):
        return "probability of the predicted class"
    return " or ".join(scores).replace("_", " ")


def _refuse_other_cases(path: Path, of_map: str, cases: pd.Series, tested: pd.Index) -> None:
    if sorted(cases) != sorted(map(str, tested)):
        raise InputError(
            f"{path} has {len(cases)} rows of the map {of_map}, and predictions.csv {len(tested)} cases; both need one row of"
            " each case, so remove the file, or test again with the callback Faithfulness"
        )
