"""Brier scores of the cases of survival models, if their predictions allow them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from e2e_abmilx.evaluation.brier import Censoring, case_brier_scores
from e2e_abmilx.runs.read import Run, columns_named


def brier_horizon(runs: Sequence[Run]) -> float | None:
    """Return the months up to which all of these runs predict survival; None if one of them does not.

    This needs the columns ``survival_<months>`` in ``predictions.csv``, and ``time`` and ``event`` of the training cases
    in ``splits.csv``.
    """
    if not all({"time", "event"} <= set(run.splits) and survival_columns(run.predictions) for run in runs):
        return None
    return min(max(survival_columns(run.predictions)) for run in runs)


def add_brier_scores(run: Run, horizon: float) -> Run:
    """Return the run with a column ``brier``: the score of each case from 0 to the horizon in months.

    Raises:
        InputError: If no training case is followed beyond the horizon.
    """
    train = run.splits[run.splits["split"] == "train"]
    return run._replace(predictions=_score(run.predictions, horizon, Censoring(train["time"], train["event"])))


def followed_horizon(predictions: pd.DataFrame) -> float | None:
    """Return the last predicted month beyond which some case is not yet censored; None if there is none."""
    columns = survival_columns(predictions)
    if not columns:
        return None
    followed = Censoring(predictions["time"], predictions["event"]).after(np.array(list(columns)))
    return max((months for months, left in zip(columns, followed, strict=True) if left > 0), default=None)


def add_own_brier_scores(predictions: pd.DataFrame, horizon: float) -> pd.DataFrame:
    """Return predictions with a column ``brier``, weighted by the censoring of these cases themselves.

    Another hospital censors at other times than the training cohort, and its training cases are not needed.

    Raises:
        InputError: If no case is followed beyond the horizon.
    """
    return _score(predictions, horizon, Censoring(predictions["time"], predictions["event"]))


def survival_columns(predictions: pd.DataFrame) -> dict[float, str]:
    """Return the columns ``survival_<months>`` by their months, in order of time."""
    names = columns_named("survival_", predictions)
    return dict(sorted((float(name.removeprefix("survival_")), name) for name in names))


def _score(predictions: pd.DataFrame, horizon: float, censoring: Censoring) -> pd.DataFrame:
    columns = survival_columns(predictions)
    scores = case_brier_scores(
        predictions[list(columns.values())],
        list(columns),
        predictions["time"],
        predictions["event"],
        censoring=censoring,
        horizon=horizon,
    )
    return predictions.assign(brier=scores)
