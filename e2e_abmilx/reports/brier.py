"""Brier scores of the cases of survival runs, if the runs recorded what these need."""

from collections.abc import Sequence

from e2e_abmilx.evaluation.brier import Censoring, case_brier_scores
from e2e_abmilx.runs.read import Run, columns_named


def brier_horizon(runs: Sequence[Run]) -> float | None:
    """Return the months up to which all of these runs predict survival; None if one of them does not.

    This needs the columns ``survival_<months>`` in ``predictions.csv``, and ``time`` and ``event`` of the training cases
    in ``splits.csv``.
    """
    if not all({"time", "event"} <= set(run.splits) and _survival_columns(run) for run in runs):
        return None
    return min(max(_survival_columns(run)) for run in runs)


def add_brier_scores(run: Run, horizon: float) -> Run:
    """Return the run with a column ``brier``: the score of each case from 0 to the horizon in months.

    Raises:
        InputError: If no training case is followed beyond the horizon.
    """
    train, table, columns = run.splits[run.splits["split"] == "train"], run.predictions, _survival_columns(run)
    scores = case_brier_scores(
        table[list(columns.values())],
        list(columns),
        table["time"],
        table["event"],
        censoring=Censoring(train["time"], train["event"]),
        horizon=horizon,
    )
    return run._replace(predictions=table.assign(brier=scores))


def _survival_columns(run: Run) -> dict[float, str]:
    """Return the columns by their months, in order of time."""
    names = columns_named("survival_", run.predictions)
    return dict(sorted((float(name.removeprefix("survival_")), name) for name in names))
