"""What a report tells of predictions, each with its definition."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from e2e_abmilx.evaluation.calibration import reliability_curve
from e2e_abmilx.evaluation.concordance import Concordance
from e2e_abmilx.evaluation.estimators import (
    Accuracy,
    Auroc,
    BalancedAccuracy,
    CohenKappa,
    Estimator,
    MacroF1,
    MeanOfMeasures,
    OnSubset,
    QuadraticWeightedKappa,
    RatioOfSums,
    Resampled,
    RowMean,
)
from e2e_abmilx.runs.read import columns_named


class Measure(NamedTuple):
    """A measure of a table of predictions, as :attr:`e2e_abmilx.runs.read.Run.predictions` is one.

    Attributes:
        title: Above its column.
        definition: What it is.
        estimator: Makes it of the n predictions.
    """

    title: str
    definition: str
    estimator: Callable[[pd.DataFrame], Estimator]


def measures_of(predictions: pd.DataFrame) -> dict[str, Measure]:
    """Return the measures that a table has the columns for, by the names that ``metrics.csv`` has for them.

    It has none for the AUC of each of several labels, ``auc_<class>``.
    """
    if "risk" in predictions:
        return {"c_index": C_INDEX} | ({"brier": BRIER} if "brier" in predictions else {})
    if has_multi_labels(predictions):
        classes = classes_of(predictions)
        return MULTI_LABEL | ({f"auc_{name}": _auc_of(name) for name in classes} if len(classes) > 1 else {})
    binary = len(classes_of(predictions)) == 2
    with_threshold = binary and bool(predictions["threshold"].notna().all())
    return CLASSIFICATION | (AT_THRESHOLD if with_threshold else {})


def has_multi_labels(predictions: pd.DataFrame) -> bool:
    """Return whether a case may be of several classes."""
    return bool(columns_named("label_", predictions))


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


def multi_labels_of(predictions: pd.DataFrame) -> NDArray[np.float64]:
    """Return 1 where a case is of a class, 0 where it is not, NaN where that is unknown, shape ``(n, K)``."""
    return predictions[columns_named("label_", predictions)].to_numpy(dtype=np.float64)


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


def _aucs(predictions: pd.DataFrame) -> list[Estimator]:
    labels = multi_labels_of(predictions)
    return [
        OnSubset(Auroc(probability, label == 1), ~np.isnan(label))
        for probability, label in zip(probabilities_of(predictions).T, labels.T, strict=True)
    ]


def _auc_of(name: str) -> Measure:
    return Measure(
        f"AUC {name}",
        f"area under the ROC curve of {name}, over the cases where it is known",
        lambda table: _aucs(table)[classes_of(table).index(name)],
    )


def _right(predictions: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether each known label is what the model says, shape ``(n, K)``."""
    right: NDArray[np.bool_] = (probabilities_of(predictions) >= 0.5) == multi_labels_of(predictions)
    return right


def _known(predictions: pd.DataFrame) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = ~np.isnan(multi_labels_of(predictions))
    return known


def _f1s(predictions: pd.DataFrame) -> list[Estimator]:
    called, label = probabilities_of(predictions) >= 0.5, multi_labels_of(predictions) == 1
    called &= _known(predictions)
    return [
        RatioOfSums(2 * (said & true), said.astype(int) + true)
        for said, true in zip(called.T, label.T, strict=True)
    ]


def _shares(predictions: pd.DataFrame) -> list[Estimator]:
    columns = zip(_right(predictions).T, _known(predictions).T, strict=True)
    return [RatioOfSums(right, known) for right, known in columns]


def _mean_over_classes(estimators: Sequence[Estimator], predictions: pd.DataFrame) -> Estimator:
    """The mean over the classes that some cases are of and others are not, as ``metrics.csv`` has it."""
    columns = multi_labels_of(predictions).T
    occur = [bool((label == 0).any() and (label == 1).any()) for label in columns]
    return MeanOfMeasures(
        [each for each, occurs in zip(estimators, occur, strict=True) if occurs], len(predictions)
    )


MULTI_LABEL = {
    "auc": Measure(
        "AUC",
        "area under the ROC curve, mean over the classes, each over the cases where it is known",
        lambda table: _mean_over_classes(_aucs(table), table),
    ),
    "accuracy": Measure(
        "accuracy",
        "share of all known labels that a probability of 0.5 or more tells rightly (micro)",
        lambda table: RatioOfSums(_right(table).sum(axis=1), _known(table).sum(axis=1)),
    ),
    "balanced_accuracy": Measure(
        "macro acc.",
        "that share of each class, mean over the classes",
        lambda table: _mean_over_classes(_shares(table), table),
    ),
    "f1": Measure(
        "F1",
        "mean of the classes' F1 scores at a probability of 0.5, over known labels",
        lambda table: _mean_over_classes(_f1s(table), table),
    ),
}

CLASSIFICATION = {
    "auc": Measure(
        "AUC",
        "area under the ROC curve, mean of each class that occurs against the rest",
        lambda table: Auroc(probabilities_of(table), labels_of(table)),
    ),
    "accuracy": Measure(
        "accuracy",
        "share of cases whose most probable class is theirs (micro)",
        lambda table: Accuracy(_predicted(table), labels_of(table)),
    ),
    "balanced_accuracy": Measure(
        "macro acc.",
        "balanced accuracy: mean of the classes' recalls",
        lambda table: BalancedAccuracy(_predicted(table), labels_of(table)),
    ),
    "f1": Measure(
        "F1", "mean of the classes' F1 scores", lambda table: MacroF1(_predicted(table), labels_of(table))
    ),
    "kappa": Measure(
        "κ",
        "Cohen's κ, agreement beyond chance",
        lambda table: CohenKappa(_predicted(table), labels_of(table)),
    ),
    "qwk": Measure(
        "quadr. κ",
        "Cohen's κ with errors weighed by their squared distance, for ordered classes",
        lambda table: QuadraticWeightedKappa(_predicted(table), labels_of(table)),
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
        lambda table: RowMean(_reached(table), among=labels_of(table) == 1),
    ),
    "specificity": Measure(
        "spec.",
        "share of the cases of the first class that stay below that threshold",
        lambda table: RowMean(~_reached(table), among=labels_of(table) == 0),
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
    lambda table: RowMean(table["brier"], among=np.ones(len(table))),
)
