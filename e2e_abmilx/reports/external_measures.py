"""The measures of an external validation: those of a report, and calibration."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from e2e_abmilx.evaluation.estimators import Estimator, OnSubset
from e2e_abmilx.evaluation.recalibration import CalibrationIntercept, CalibrationSlope
from e2e_abmilx.evaluation.survival_calibration import CoxSlope, ObservedToExpected, log_cumulative_hazard
from e2e_abmilx.reports.brier import survival_columns
from e2e_abmilx.reports.measures import (
    Measure,
    classes_of,
    has_multi_labels,
    labels_of,
    measures_of,
    multi_labels_of,
    probabilities_of,
)


def external_measures(predictions: pd.DataFrame, *, log_hazard: bool = True) -> dict[str, Measure]:
    """Return the measures that a table has the columns for: those of `measures_of`, and calibration.

    ``calibration_slope`` and ``calibration_intercept`` are those of the second of two classes; of more classes, or of
    several labels per case, each class has its own, ``calibration_slope_<class>``. A survival model has
    ``calibration_slope`` and, at the end of each predicted time bin, ``observed_expected_<months>``.

    Args:
        predictions: The table.
        log_hazard: Whether a risk without predicted survival is a log hazard ratio, as of a Cox model. That of models
            with different time bins is none, and has no calibration.
    """
    measures = measures_of(predictions)
    if "brier" in measures:
        definition = f"{measures['brier'].definition}; each cohort is weighted by its own censoring"
        measures = measures | {"brier": measures["brier"]._replace(definition=definition)}
    if "risk" in predictions:
        calibrated = log_hazard or bool(survival_columns(predictions))
        return measures | _survival_calibration(predictions) if calibrated else measures
    classes = classes_of(predictions)
    if len(classes) == 2 and not has_multi_labels(predictions):
        return measures | _class_calibration(classes[1], "")
    return measures | {
        key: measure for name in classes for key, measure in _class_calibration(name, f"_{name}").items()
    }


def _class_calibration(name: str, suffix: str) -> dict[str, Measure]:
    """Return slope and intercept of one class; the suffix, of one of several classes, is added to their names."""
    title = f" {name}" if suffix else ""
    return {
        f"calibration_slope{suffix}": Measure(
            f"cal. slope{title}",
            f"calibration slope: coefficient of the log odds of the probability of {name} in a logistic regression of"
            f" {name} against the rest; 1 is calibrated, below 1 the probabilities are too extreme",
            _of_class(name, CalibrationSlope),
        ),
        f"calibration_intercept{suffix}": Measure(
            f"cal. intercept{title}",
            f"calibration in the large: intercept of that regression at a slope of 1; 0 is calibrated, below 0 the"
            f" probability of {name} is too high on average",
            _of_class(name, CalibrationIntercept),
        ),
    }


def _of_class(
    name: str, estimator: Callable[[NDArray[np.float64], NDArray[np.bool_]], Estimator]
) -> Callable[[pd.DataFrame], Estimator]:
    """Return a function that creates an estimator of one class against the rest, over the cases where it is known."""

    def of_table(predictions: pd.DataFrame) -> Estimator:
        number = classes_of(predictions).index(name)
        probability = probabilities_of(predictions)[:, number]
        if has_multi_labels(predictions):
            label = multi_labels_of(predictions)[:, number]
            return OnSubset(estimator(probability, label == 1), ~np.isnan(label))
        return estimator(probability, labels_of(predictions) == number)

    return of_table


def _survival_calibration(predictions: pd.DataFrame) -> dict[str, Measure]:
    columns = survival_columns(predictions)
    what = (
        f"the predicted log cumulative hazard at {max(columns):g} months"
        if columns
        else "the risk, which a Cox model predicts as a log hazard ratio"
    )
    slope = Measure(
        "cal. slope",
        f"calibration slope: coefficient of {what}, in a Cox regression; 1 is calibrated, below 1 the predictions are too"
        " extreme",
        _cox_slope,
    )
    ratios = {f"observed_expected_{months:g}": _observed_to_expected(months) for months in columns}
    return {"calibration_slope": slope, **ratios}


def _cox_slope(predictions: pd.DataFrame) -> Estimator:
    columns = survival_columns(predictions)
    score = log_cumulative_hazard(predictions[columns[max(columns)]]) if columns else predictions["risk"]
    return CoxSlope(score, predictions["time"], predictions["event"])


def _observed_to_expected(months: float) -> Measure:
    def estimator(predictions: pd.DataFrame) -> Estimator:
        survival = predictions[survival_columns(predictions)[months]]
        return ObservedToExpected(survival, predictions["time"], predictions["event"], months)

    return Measure(
        f"O/E {months:g} mo",
        f"observed (Kaplan–Meier) divided by expected fraction of cases with an event within {months:g} months; 1 is"
        " calibrated, below 1 the model predicts too many events",
        estimator,
    )
