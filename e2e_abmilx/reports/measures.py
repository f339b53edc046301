"""What a report tells of predictions, each with its definition."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from e2e_abmilx.evaluation.calibration import reliability_curve
from e2e_abmilx.evaluation.concordance import Concordance
from e2e_abmilx.evaluation.estimators import (
    Accuracy,
    Auroc,
    CohenKappa,
    Estimator,
    MacroAccuracy,
    MacroF1,
    Mean,
    QuadraticKappa,
    Resampled,
)
from e2e_abmilx.runs import columns_named


class Measure(NamedTuple):
    """A measure of a table of predictions, as :attr:`e2e_abmilx.runs.Run.predictions` is one.

    Attributes:
        title: Above its column.
        definition: What it is.
        estimator: Makes it of the n predictions.
    """

    title: str
    definition: str
    estimator: Callable[[pd.DataFrame], Estimator]


def measures_of(predictions: pd.DataFrame) -> dict[str, Measure]:
    """Return the measures that a table has the columns for, by the names that ``metrics.csv`` has for them."""
    if "risk" in predictions:
        return {"c_index": C_INDEX} | ({"brier": BRIER} if "brier" in predictions else {})
    binary = len(classes_of(predictions)) == 2
    with_threshold = binary and bool(predictions["threshold"].notna().all())
    return CLASSIFICATION | (AT_THRESHOLD if with_threshold else {})


def classes_of(predictions: pd.DataFrame) -> list[str]:
    """Return the classes of a classification in their order; none of a survival model."""
    return [name.removeprefix("probability_") for name in columns_named("probability_", predictions)]


def probabilities_of(predictions: pd.DataFrame) -> NDArray[np.float64]:
    """Return the probability of each class, shape ``(n, K)``."""
    return predictions[columns_named("probability_", predictions)].to_numpy(dtype=np.float64)


def labels_of(predictions: pd.DataFrame) -> NDArray[np.int64]:
    """Return the number of each case's class, shape ``(n,)``."""
    number = {name: number for number, name in enumerate(classes_of(predictions))}
    return np.array([number[name] for name in predictions["label"]], dtype=np.int64)


def _predicted(predictions: pd.DataFrame) -> NDArray[np.int64]:
    predicted: NDArray[np.int64] = probabilities_of(predictions).argmax(axis=1)
    return predicted


def _ece(predictions: pd.DataFrame) -> Estimator:
    def error(probability: NDArray[Any], label: NDArray[Any]) -> float:
        return reliability_curve(probability, label).expected_calibration_error

    return Resampled(error, probabilities_of(predictions), labels_of(predictions))


def _reached(predictions: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether the second class is called; rows of different runs have different thresholds."""
    reached: NDArray[np.bool_] = probabilities_of(predictions)[:, 1] >= predictions["threshold"].to_numpy()
    return reached


CLASSIFICATION = {
    "auc": Measure(
        "AUC",
        "area under the ROC curve, mean of each class against the rest",
        lambda table: Auroc(probabilities_of(table), labels_of(table)),
    ),
    "accuracy": Measure(
        "accuracy",
        "share of cases whose most probable class is theirs (micro)",
        lambda table: Accuracy(_predicted(table), labels_of(table)),
    ),
    "accuracy_macro": Measure(
        "macro acc.",
        "mean of the classes' recalls",
        lambda table: MacroAccuracy(_predicted(table), labels_of(table)),
    ),
    "f1": Measure(
        "F1", "mean of the classes' F1 scores", lambda table: MacroF1(_predicted(table), labels_of(table))
    ),
    "kappa": Measure(
        "κ",
        "Cohen's κ, agreement beyond chance",
        lambda table: CohenKappa(_predicted(table), labels_of(table)),
    ),
    "kappa_quadratic": Measure(
        "quadr. κ",
        "Cohen's κ with errors weighed by their squared distance, for ordered classes",
        lambda table: QuadraticKappa(_predicted(table), labels_of(table)),
    ),
    "ece": Measure(
        "ECE", "expected calibration error of the most probable class, 15 bins; less is better", _ece
    ),
}

AT_THRESHOLD = {
    "sensitivity": Measure(
        "sens.",
        "share of the cases of the second class that reach the threshold, which each run fitted on its"
        " validation cases",
        lambda table: Mean(_reached(table), among=labels_of(table) == 1),
    ),
    "specificity": Measure(
        "spec.",
        "share of the cases of the first class that stay below that threshold",
        lambda table: Mean(~_reached(table), among=labels_of(table) == 0),
    ),
}

C_INDEX = Measure(
    "C-index",
    "Harrell's: share of comparable pairs in which the higher risk meets the earlier event",
    lambda table: Concordance(table["risk"], table["time"], table["event"]),
)

BRIER = Measure(
    "IBS",
    "integrated Brier score of the predicted survival, weighted for censoring; 0 is perfect, 0.25 a coin's",
    lambda table: Mean(table["brier"], among=np.ones(len(table))),
)
