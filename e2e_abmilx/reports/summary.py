"""The measures of each run, their mean and spread, and the measures of all test cases together."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import Estimate, bootstrap
from e2e_abmilx.io.progress import track
from e2e_abmilx.reports.measures import Measure
from e2e_abmilx.runs.read import Run


class Spread(NamedTuple):
    """A measure over runs.

    Attributes:
        mean: Mean over the runs where it is defined; NaN if there are none.
        std: Standard deviation over these runs, with n - 1; NaN for fewer than two.
        runs: Number of these runs.
    """

    mean: float
    std: float
    runs: int


class Summary(NamedTuple):
    """The measures of a set of runs.

    Attributes:
        runs: The runs.
        per_run: The measures of each run, by name.
        spread: The measures over runs, by name.
        pooled: The measures of all test cases together, by name; None if a case was tested more than once.
        overlap: Two runs that test the same case, in words; empty if the measures are pooled.
    """

    runs: list[Run]
    per_run: list[dict[str, Estimate]]
    spread: dict[str, Spread]
    pooled: dict[str, Estimate] | None
    overlap: str


def summarise(runs: Sequence[Run], measures: Mapping[str, Measure]) -> Summary:
    """Measure each run and, if every case was tested once, all test cases together.

    The folds of one cross-validation are pooled; seeds of one fold, and splits drawn repeatedly, are not.

    Raises:
        InputError: If two folds of one cross-validation test the same case.
    """
    per_run = [estimate(run.predictions, measures) for run in track(runs, "measuring", "runs")]
    spread = {name: spread_of([values[name].point for values in per_run]) for name in measures}
    overlap = find_overlap(runs)
    pooled = None
    if not overlap:
        pooled = estimate(pool(runs), measures) if len(runs) > 1 else per_run[0]
    return Summary(list(runs), per_run, spread, pooled, overlap)


def estimate(predictions: pd.DataFrame, measures: Mapping[str, Measure]) -> dict[str, Estimate]:
    """Return the measures of a table of predictions, with intervals over cases."""
    cases = predictions.index.tolist()
    return {name: bootstrap(measure.estimator(predictions), cases) for name, measure in measures.items()}


def pool(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the predictions of all runs in one table."""
    return pd.concat([run.predictions for run in runs])


def find_overlap(runs: Sequence[Run]) -> str:
    """Return which runs test the same case, in words; an empty string if none do.

    Raises:
        InputError: If these are two folds of one cross-validation, which means that its cases have changed in between.
    """
    tested: dict[str, Run] = {}
    for run in runs:
        for case in run.predictions.index:
            other = tested.setdefault(case, run)
            if other is run:
                continue
            overlap = f"case {case} is tested by {other.folder} and by {run.folder}"
            if _are_folds_of_one_split(run, other):
                raise InputError(
                    f"{overlap}, folds {other.data['fold']} and {run.data['fold']} of one cross-validation:"
                    " the label table has changed between them; fit both again"
                )
            return overlap
    return ""


def _are_folds_of_one_split(run: Run, other: Run) -> bool:
    """Whether the data settings differ only in the fold, and the data module created the folds."""
    one, two = ({**data, "fold": None} for data in (run.data, other.data))
    created = run.data.get("fold") is not None and run.data.get("splits") is None
    return created and run.data["fold"] != other.data.get("fold") and one == two


def spread_of(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation of a measure over the runs where it is defined."""
    defined = np.array(values)[~np.isnan(values)]
    mean = float(defined.mean()) if len(defined) else np.nan
    std = float(defined.std(ddof=1)) if len(defined) > 1 else np.nan
    return Spread(mean, std, len(defined))
