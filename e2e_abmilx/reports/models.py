"""A table of models that were trained on the same splits with the same budget, as Table 7 of arXiv:2506.02408."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import bootstrap, paired_bootstrap
from e2e_abmilx.evaluation.estimators import MeanOverRuns
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.io.progress import track
from e2e_abmilx.reports.comparison import refuse_different_truth
from e2e_abmilx.reports.measures import Measure, choose_measure
from e2e_abmilx.reports.records import fit_seconds, read_record
from e2e_abmilx.reports.summary import pool, spread_of
from e2e_abmilx.reports.tables import decimals
from e2e_abmilx.runs.read import Run, read_test_metrics


class ModelTable(NamedTuple):
    """Several models, measured on the same cases.

    Attributes:
        measure: The measure: the first of the task (AUC, C-index or R²) or the chosen one.
        cases: Number of cases that every model was tested on.
        models: One row per model, in the order given; NaN where a number is undefined or was not recorded. Columns:
            ``model``; ``measure``, the name of the measure; ``runs``, ``mean`` and ``std``, over the runs where it is
            defined; ``low`` and ``high``, the interval of the mean over cases; ``difference`` from the first model, with ``difference_low``,
            ``difference_high`` and ``p_value``, paired by case; ``encoder_parameters`` and ``head_parameters``, trained
            or not; ``fit_minutes``, mean over runs; and ``fraction_holding_95``, the smallest fraction of a test case's
            patches that holds 95 % of the attention, mean over cases, heads and runs.
    """

    measure: Measure
    cases: int
    models: pd.DataFrame


def tabulate_models(runs_of: Mapping[str, Sequence[Run]], measure: str | None = None) -> ModelTable:
    """Measure the runs of each model, given by its name, and compare each model with the first.

    The runs of a model are folds, seeds, or both: the measure is computed in each run and averaged over runs. Intervals
    come from resampling cases, each with all its predictions, so they show how much the mean depends on the cases; the
    standard deviation over runs shows how much it depends on seeds and folds.

    Args:
        runs_of: Runs of each model.
        measure: A name of :func:`~e2e_abmilx.reports.measures.measures_of`; by default the first of the task: AUC,
            C-index or R².

    Raises:
        InputError: If models were tested on different cases, or with different labels, or have no such measure.
    """
    tables = {name: pool(runs) for name, runs in runs_of.items()}
    chosen, measured = choose_measure(pd.concat(tables.values()), measure)
    truth = _shared_truth(tables)
    cases = truth.index.tolist()
    first, rows = None, []
    for name, runs in track(runs_of.items(), "comparing", "models"):
        places = [truth.index.get_indexer(run.predictions.index) for run in runs]
        parts = [measured.estimator(run.predictions) for run in runs]
        mean = MeanOverRuns(list(zip(parts, places, strict=True)), len(cases))
        spread = spread_of([estimator(np.ones(estimator.rows, np.int64)) for estimator in parts])
        interval = bootstrap(mean, cases)
        row = {"model": name, "measure": chosen, "runs": spread.runs, "mean": spread.mean, "std": spread.std}
        row |= {"low": interval.low, "high": interval.high}
        row |= dict.fromkeys(("difference", "difference_low", "difference_high", "p_value"), np.nan)
        if first is None:
            first = mean
        else:
            change, p_value = paired_bootstrap(mean, first, cases)
            row |= {"difference": change.point, "difference_low": change.low, "difference_high": change.high}
            row["p_value"] = p_value
        rows.append(row | _recorded(runs))
    return ModelTable(measured, len(cases), pd.DataFrame(rows))


def markdown(table: ModelTable) -> str:
    """Return the table as Markdown, followed by the meaning of its columns."""
    title = table.measure.title
    head = [
        "model", "runs", f"{title}, mean ± std", "95 % interval", "− first (95 % interval)", "p",
        "parameters, encoder + head", "fit, min", "fraction holding 95 %",
    ]  # fmt: skip
    rows = [head, ["---"] + ["--:"] * (len(head) - 1)]
    rows += [_markdown_cells(model, place) for place, model in enumerate(table.models.to_dict("records"))]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    meaning = (
        f"{title}: {table.measure.definition}; computed in each run, then averaged. std: over runs. Intervals and p:"
        f" {table.cases} cases resampled, paired by case. Fraction holding 95 %: the smallest fraction of a test case's"
        " patches that holds 95 % of the attention."
    )
    return "\n".join([*lines, "", meaning])


def write_models(table: ModelTable, path: Path) -> None:
    """Write a CSV with one row per model; unknown numbers are empty."""
    with atomic_write(path) as partial:
        table.models.to_csv(partial, index=False, lineterminator="\n")


def _shared_truth(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row per case."""
    truths = {name: table[~table.index.duplicated()].sort_index() for name, table in tables.items()}
    first_name, truth = next(iter(truths.items()))
    for name, other in truths.items():
        if other.index.tolist() != truth.index.tolist():
            raise InputError(
                f"{name} is tested on {len(other)} cases and {first_name} on {len(truth)}, not on the same ones;"
                " compare models on the same splits"
            )
        refuse_different_truth(truth, other)
    return truth


def _recorded(runs: Sequence[Run]) -> dict[str, float]:
    """Return means over runs; NaN if a run did not record the number."""
    rows = []
    for run in runs:
        record, tested = read_record(run.folder), read_test_metrics(run.folder)
        rows.append(
            {
                "encoder_parameters": record["parameters"].get("encoder", np.nan),
                "head_parameters": record["parameters"].get("head", np.nan),
                "fit_minutes": fit_seconds(record) / 60,
                "fraction_holding_95": float(tested.get("test/fraction_holding_95", "nan")),
            }
        )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _markdown_cells(model: dict[Hashable, Any], place: int) -> list[str]:
    point, low, high = (_signed(model[f"difference{end}"]) for end in ("", "_low", "_high"))
    return [
        model["model"].replace("|", r"\|"),
        str(model["runs"]),
        f"{decimals(model['mean'])} ± {decimals(model['std'])}",
        f"{decimals(model['low'])} to {decimals(model['high'])}",
        f"{point} ({low} to {high})" if place else "",
        decimals(model["p_value"]) if place else "",
        f"{_millions(model['encoder_parameters'])} + {_millions(model['head_parameters'])}",
        "–" if np.isnan(model["fit_minutes"]) else f"{model['fit_minutes']:.1f}",
        decimals(model["fraction_holding_95"]),
    ]


def _signed(value: float) -> str:
    return decimals(value) if np.isnan(value) or value < 0 else f"+{decimals(value)}"


def _millions(number: float) -> str:
    return "–" if np.isnan(number) else f"{number / 1e6:.2f} M"
