"""A table of models that were trained on the same splits with the same budget, as Table 7 of arXiv:2506.02408."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import Difference, Estimate, bootstrap, paired_bootstrap
from e2e_abmilx.evaluation.estimators import MeanOverRuns
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.io.progress import track
from e2e_abmilx.reports.comparison import refuse_different_truth
from e2e_abmilx.reports.measures import Measure, measures_of
from e2e_abmilx.reports.records import fit_seconds, read_record
from e2e_abmilx.reports.summary import Spread, pool, spread_of
from e2e_abmilx.reports.tables import decimals
from e2e_abmilx.runs.read import Run, read_test_metrics


class Model(NamedTuple):
    """The results of one model; numbers that its runs did not record are NaN.

    Attributes:
        name: Name of the model.
        spread: The measure over its runs.
        estimate: Mean over its runs, with an interval over cases.
        difference: This mean minus that of the first model, paired by case; None for the first model.
        encoder_parameters: Number of parameters, trained or not.
        head_parameters: Number of parameters, trained or not.
        fit_minutes: Mean over the runs.
        fraction_holding_95: Smallest fraction of a test case's patches that holds 95 % of the attention; mean over
            cases, heads and runs.
    """

    name: str
    spread: Spread
    estimate: Estimate
    difference: Difference | None
    encoder_parameters: float
    head_parameters: float
    fit_minutes: float
    fraction_holding_95: float


class ModelTable(NamedTuple):
    """Several models, measured on the same cases.

    Attributes:
        measure: The measure: AUC or C-index.
        cases: Number of cases that every model was tested on.
        models: The models, in the order given.
    """

    measure: Measure
    cases: int
    models: list[Model]


def tabulate_models(runs_of: Mapping[str, Sequence[Run]]) -> ModelTable:
    """Measure the runs of each model, and compare each model with the first.

    The runs of a model are folds, seeds, or both: the measure is computed in each run and averaged over runs. Intervals
    come from resampling cases, each with all its predictions, so they show how much the mean depends on the cases; the
    standard deviation over runs shows how much it depends on seeds and folds.

    Args:
        runs_of: Runs of each model, by the model's name.

    Raises:
        InputError: If models were tested on different cases, or with different labels.
    """
    tables = {name: pool(runs) for name, runs in runs_of.items()}
    measure = next(iter(measures_of(pd.concat(tables.values())).values()))
    truth = _shared_truth(tables)
    cases = truth.index.tolist()
    means = {name: _mean_over_runs(runs, measure, truth.index) for name, runs in runs_of.items()}
    first = next(iter(means.values()))
    models = []
    for name, runs in track(runs_of.items(), "comparing", "models"):
        mean = means[name]
        spread = spread_of([estimator(np.ones(estimator.rows, np.int64)) for estimator, _ in mean.parts])
        difference = None if mean is first else paired_bootstrap(mean, first, cases)
        models.append(Model(name, spread, bootstrap(mean, cases), difference, *_recorded(runs)))
    return ModelTable(measure, len(cases), models)


def markdown(table: ModelTable) -> str:
    """Return the table as Markdown, followed by the meaning of its columns."""
    title = table.measure.title
    head = [
        "model", "runs", f"{title}, mean ± std", "95 % interval", "− first (95 % interval)", "p",
        "parameters, encoder + head", "fit, min", "fraction holding 95 %",
    ]  # fmt: skip
    rows = [head, ["---"] + ["--:"] * (len(head) - 1), *map(_markdown_cells, table.models)]
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
        pd.DataFrame(map(_csv_row, table.models)).to_csv(partial, index=False, lineterminator="\n")


def _shared_truth(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row per case; refuse models that were tested on different cases or with different labels."""
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


def _mean_over_runs(runs: Sequence[Run], measure: Measure, cases: pd.Index) -> MeanOverRuns:
    parts = [(measure.estimator(run.predictions), cases.get_indexer(run.predictions.index)) for run in runs]
    return MeanOverRuns(parts, len(cases))


def _recorded(runs: Sequence[Run]) -> list[float]:
    """Return the last four attributes of a :class:`Model`."""
    rows = []
    for run in runs:
        record, tested = read_record(run.folder), read_test_metrics(run.folder)
        parameters = [record["parameters"].get(part, np.nan) for part in ("encoder", "head")]
        rows.append(
            [*parameters, fit_seconds(record) / 60, float(tested.get("test/fraction_holding_95", "nan"))]
        )
    return [float(np.mean(column)) for column in zip(*rows, strict=True)]


def _csv_row(model: Model) -> dict[str, object]:
    change = model.difference
    low, high = (change.estimate.low, change.estimate.high) if change else (np.nan, np.nan)
    return {
        "model": model.name,
        "runs": model.spread.runs,
        "mean": model.spread.mean,
        "std": model.spread.std,
        "low": model.estimate.low,
        "high": model.estimate.high,
        "difference": change.estimate.point if change else np.nan,
        "difference_low": low,
        "difference_high": high,
        "p_value": change.p_value if change else np.nan,
        "encoder_parameters": model.encoder_parameters,
        "head_parameters": model.head_parameters,
        "fit_minutes": model.fit_minutes,
        "fraction_holding_95": model.fraction_holding_95,
    }


def _markdown_cells(model: Model) -> list[str]:
    change, p_value = "", ""
    if model.difference:
        point, low, high = (
            _signed(getattr(model.difference.estimate, name)) for name in ("point", "low", "high")
        )
        change, p_value = f"{point} ({low} to {high})", decimals(model.difference.p_value)
    return [
        model.name,
        str(model.spread.runs),
        f"{decimals(model.spread.mean)} ± {decimals(model.spread.std)}",
        f"{decimals(model.estimate.low)} to {decimals(model.estimate.high)}",
        change,
        p_value,
        f"{_millions(model.encoder_parameters)} + {_millions(model.head_parameters)}",
        "–" if np.isnan(model.fit_minutes) else f"{model.fit_minutes:.1f}",
        decimals(model.fraction_holding_95),
    ]


def _signed(value: float) -> str:
    return decimals(value) if np.isnan(value) or value < 0 else f"+{decimals(value)}"


def _millions(number: float) -> str:
    return "–" if np.isnan(number) else f"{number / 1e6:.2f} M"
