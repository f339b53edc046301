"""Models side by side, trained on the same splits with the same budget, as in Table 7 of arXiv:2506.02408."""

import csv
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
from e2e_abmilx.reports.comparison import refuse_other_truth
from e2e_abmilx.reports.measures import Measure, measures_of
from e2e_abmilx.reports.records import read_record
from e2e_abmilx.reports.summary import Spread, pool, spread_of
from e2e_abmilx.reports.tables import decimals
from e2e_abmilx.runs.read import Run, read_test_metrics


class Model(NamedTuple):
    """What the runs of one model say.

    Attributes:
        name: Of the model.
        spread: The measure over its runs.
        estimate: Their mean, with its interval by case.
        difference: Their mean minus that of the first model, paired by case; None for the first one.
        encoder_parameters: Trained or not; NaN where the runs did not record it.
        head_parameters: Likewise.
        fit_minutes: Mean over the runs; NaN where they did not record it.
        fraction_holding_95: The fewest patches that hold 95 % of the attention of a test case, as a share of its
            patches; mean over cases, heads and runs.
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
    """Models side by side.

    Attributes:
        measure: What they are measured by: AUC or C-index.
        cases: Number of cases that every model was tested on.
        models: The models, in the order given.
    """

    measure: Measure
    cases: int
    models: list[Model]


def compare_models(runs_of: Mapping[str, Sequence[Run]]) -> ModelTable:
    """Measure the runs of each model, and compare each model with the first.

    A model's runs are folds, seeds, or both: the measure is taken in each run and averaged over them. Intervals come
    from resampling cases, each with all its predictions, so they tell how sure the mean is with other cases; the
    standard deviation over runs tells how much seeds and folds change it.

    Args:
        runs_of: Runs of each model, by its name.

    Raises:
        InputError: Models were tested on different cases, or on other labels of them.
    """
    tables = {name: pool(runs) for name, runs in runs_of.items()}
    everything = pd.concat(tables.values())
    measure = next(iter(measures_of(everything).values()))
    truths = {name: table[~table.index.duplicated()].sort_index() for name, table in tables.items()}
    first_name, truth = next(iter(truths.items()))
    cases = truth.index.tolist()
    for name, other in truths.items():
        if other.index.tolist() != cases:
            raise InputError(
                f"{name} is tested on {len(other)} cases and {first_name} on {len(cases)}, not on the same ones;"
                " compare models on the same splits"
            )
        refuse_other_truth(truth, other)
    means = {name: _mean_over_runs(runs, measure, truth.index) for name, runs in runs_of.items()}
    models = [
        Model(
            name,
            spread_of([bare(np.ones(bare.rows, np.int64)) for bare, _ in means[name].parts]),
            bootstrap(means[name], cases),
            None if name == first_name else paired_bootstrap(means[name], means[first_name], cases),
            *_facts(runs),
        )
        for name, runs in track(runs_of.items(), "comparing", "models")
    ]
    return ModelTable(measure, len(cases), models)


def markdown(table: ModelTable) -> str:
    """Return the table as Markdown, with what its columns mean below it."""
    title = table.measure.title
    head = [
        "model", "runs", f"{title}, mean ± std", "95 % interval", "− first (95 % interval)", "p",
        "parameters, encoder + head", "fit, min", "share holding 95 %",
    ]  # fmt: skip
    rows = [head, ["---"] + ["--:"] * (len(head) - 1), *map(_cells, table.models)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    meaning = (
        f"{title}: {table.measure.definition}; taken in each run, then averaged. std: over runs. Intervals and p:"
        f" {table.cases} cases resampled, paired by case. Share holding 95 %: the fewest patches of a test case that"
        " hold 95 % of the attention, as a share of all."
    )
    return "\n".join([*lines, "", meaning])


def write_models(table: ModelTable, path: Path) -> None:
    """Write a CSV with a row a model; empty: not known."""
    with atomic_write(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(
            ["model", "runs", "mean", "std", "low", "high", "difference", "difference_low", "difference_high", "p_value",
             "encoder_parameters", "head_parameters", "fit_minutes", "fraction_holding_95"]
        )  # fmt: skip
        for one in table.models:
            change = one.difference
            against = (
                [change.estimate.point, change.estimate.low, change.estimate.high, change.p_value]
                if change
                else [""] * 4
            )
            numbers = [
                one.spread.runs,
                one.spread.mean,
                one.spread.std,
                one.estimate.low,
                one.estimate.high,
                *against,
            ]
            rows.writerow([one.name, *map(_known, [*numbers, *one[4:]])])


def _mean_over_runs(runs: Sequence[Run], measure: Measure, cases: pd.Index) -> MeanOverRuns:
    parts = [(measure.estimator(run.predictions), cases.get_indexer(run.predictions.index)) for run in runs]
    return MeanOverRuns(parts, len(cases))


def _facts(runs: Sequence[Run]) -> list[float]:
    """Parameters of encoder and head, minutes of a fit and sparsity; NaN where runs did not record them."""
    records = [read_record(run.folder) for run in runs]
    tested = [read_test_metrics(run.folder) for run in runs]
    columns = [
        [record.encoder_parameters for record in records],
        [record.head_parameters for record in records],
        [record.fit_seconds / 60 for record in records],
        [float(metrics.get("test/fraction_holding_95", "nan")) for metrics in tested],
    ]
    return [float(np.mean(column)) for column in columns]


def _cells(model: Model) -> list[str]:
    change, p_value = "", ""
    if model.difference:
        change = f"{_signed(model.difference.estimate.point)} ({_signed(model.difference.estimate.low)} to {_signed(model.difference.estimate.high)})"
        p_value = decimals(model.difference.p_value)
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


def _known(value: float | str) -> float | str:
    return "" if isinstance(value, float) and np.isnan(value) else value
