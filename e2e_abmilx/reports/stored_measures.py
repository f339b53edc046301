"""The measures of an internal test as a model carries them: no predictions and no names of cases."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import Estimate
from e2e_abmilx.reports.brier import add_own_brier_scores, followed_horizon, survival_columns
from e2e_abmilx.reports.external_measures import external_measures
from e2e_abmilx.reports.measures import classes_of, has_multi_labels
from e2e_abmilx.reports.summary import estimate
from e2e_abmilx.reports.tables import plain


class StoredMeasures(NamedTuple):
    """The measures of an internal test.

    Attributes:
        cases: Number of tested cases.
        outputs: What the model predicts, as from `outputs_of`.
        horizon: Months up to which the Brier score is integrated; None without one.
        estimates: The measures, by name.
    """

    cases: int
    outputs: dict[str, Any]
    horizon: float | None
    estimates: dict[str, Estimate]


def measures_json(predictions: pd.DataFrame) -> dict[str, Any]:
    """Return the measures of an internal test in a form that JSON can hold; undefined numbers are None.

    Args:
        predictions: In the form of :attr:`e2e_abmilx.runs.read.Run.predictions`.
    """
    horizon = followed_horizon(predictions)
    if horizon is not None:
        predictions = add_own_brier_scores(predictions, horizon)
    measures = external_measures(predictions)
    estimates = estimate(predictions, measures)
    described = {
        name: {"title": one.title, "definition": one.definition, **plain(estimates[name])}
        for name, one in measures.items()
    }
    return {"cases": len(predictions), "outputs": outputs_of(predictions), "horizon": horizon, "measures": described}


def read_measures(content: Mapping[str, Any]) -> StoredMeasures:
    """Read what `measures_json` returned.

    Raises:
        InputError: If a part is missing or not a number.
    """
    try:
        horizon = content["horizon"]
        return StoredMeasures(
            int(content["cases"]),
            dict(content["outputs"]),
            None if horizon is None else float(horizon),
            {name: _estimate(one) for name, one in content["measures"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the measures of the internal test cannot be read ({type(error).__name__}: {error}); export the model again"
        ) from error


def outputs_of(predictions: pd.DataFrame) -> dict[str, Any]:
    """Return what a model predicts: its classes in order, its labels, or its edges in months; empty for other tasks."""
    if "risk" in predictions:
        return {"survival_edges": list(survival_columns(predictions))}
    if has_multi_labels(predictions):
        return {"labels": classes_of(predictions)}
    classes = classes_of(predictions)
    return {"classes": classes} if classes else {}


def _estimate(stored: Mapping[str, Any]) -> Estimate:
    point, mean, std, low, high = (
        math.nan if stored[name] is None else float(stored[name]) for name in ("point", "mean", "std", "low", "high")
    )
    return Estimate(point, mean, std, low, high, int(stored["n_resamples"]), int(stored["undefined"]))
