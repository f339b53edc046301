"""The measures that a report gives, each with its definition."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.errors import InputError
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
from e2e_abmilx.evaluation.regression import MeanAbsoluteError, Pearson, RSquared, Spearman
from e2e_abmilx.runs.read import columns_named


class Measure(NamedTuple):
    """A measure of a table of predictions in the form of :attr:`e2e_abmilx.runs.read.Run.predictions`.

    Attributes:
        title: Title of its column.
        definition: What it measures.
        estimator: Creates its estimator from a table.
    """

    title: str
    definition: str
    estimator: Callable[[pd.DataFrame], Estimator]


def measures_of(predictions: pd.DataFrame) -> dict[str, Measure]:
    """Return the measures that a table has the columns for, by their names in ``metrics.csv``.

    Only ``auc_<class>``, the AUC of each of several labels, is not in ``metrics.csv``.
    """
    if is_regression(predictions):
        return REGRESSION
    if "risk" in predictions:
        return {"c_index": C_INDEX} | ({"brier": BRIER} if "brier" in predictions else {})
    if has_multi_labels(predictions):
        classes = classes_of(predictions)
        return MULTI_LABEL | ({f"auc_{name}": _auc_of(name) for name in classes} if len(classes) > 1 else {})
    binary = len(classes_of(predictions)) == 2
    with_threshold = binary and bool(predictions["threshold"].notna().all())
    return CLASSIFICATION | (AT_THRESHOLD if with_threshold else {})


def choose_measure(predictions: pd.DataFrame, name: str | None = None) -> tuple[str, Measure]:
    """Return the measure of this name, and its name; by default the first: AUC, C-index or R².

    Raises:
        InputError: The table has no measure of this name.
    """
    known = measures_of(predictions)
    if name is None:
        return next(iter(known.items()))
    if name not in known:
        raise InputError(f"measure is {name}, but these runs have {', '.join(known)}; name one of them")
    return name, known[name]


def refuse_unknown_measure(name: str) -> None:
    """Refuse a name that no task has a measure of.

    Raises:
        InputError: There is no such measure.
    """
    known = [*CLASSIFICATION, *AT_THRESHOLD, "c_index", "brier", *REGRESSION]
    if name not in known and not name.startswith("auc_"):
        raise InputError(
            f"measure is {name}, which no task has; name one of {', '.join(known)}, or auc_<class> for several labels"
        )


def is_regression(predictions: pd.DataFrame) -> bool:
    """Return whether a number is predicted."""
    return "predicted_value" in predictions


def has_multi_labels(predictions: pd.DataFrame) -> bool:
    """Return whether a case may have several classes."""
    return bool(columns_named("label_", predictions))


def classes_of(predictions: pd.DataFrame) -> list[str]:
    """Return the classes of a classification in their order; none for a survival model or a regression."""
    return [name.removeprefix("probability_") for name in columns_named("probability_", predictions)]


def probabilities_of(predictions: pd.DataFrame) -> NDArray[np.float64]:
    """Return the probability of each class, shape ``(n, K)``."""
    return predictions[columns_named("probability_", predictions)].to_numpy(dtype=np.float64)


def labels_of(predictions: pd.DataFrame) -> NDArray[np.int64]:
    """Return the class number of each case, shape ``(n,)``."""
    number = {name: number for number, name in enumerate(classes_of(predictions))}
    return np.array([number[name] for name in predictions["label"]], dtype=np.int64)


def multi_labels_of(predictions: pd.DataFrame) -> NDArray[np.float64]:
    """Return 1 where a case has a class, 0 where it has not, and NaN where that is unknown, shape ``(n, K)``."""
    return predictions[columns_named("label_", predictions)].to_numpy(dtype=np.float64)


def _of_predicted(estimator: Callable[[ArrayLike, ArrayLike], Estimator]) -> Callable[[pd.DataFrame], Estimator]:
    """Return a function that creates an estimator from the most probable class and the label of each case."""
    return lambda table: estimator(probabilities_of(table).argmax(axis=1), labels_of(table))


def _of_values(estimator: Callable[[ArrayLike, ArrayLike], Estimator]) -> Callable[[pd.DataFrame], Estimator]:
    """Return a function that creates an estimator from the predicted and the true value of each case."""
    return lambda table: estimator(table["predicted_value"], table["value"])


def _ece(probability: ArrayLike, label: ArrayLike) -> float:
    return reliability_curve(probability, label).expected_calibration_error


def _reached(predictions: pd.DataFrame) -> NDArray[np.bool_]:
    """Return whether the second class reaches the threshold, which differs between runs."""
    reached: NDArray[np.bool_] = probabilities_of(predictions)[:, 1] >= predictions["threshold"].to_numpy()
    return reached


def _label_auc(probability: NDArray[np.float64], label: NDArray[np.float64]) -> Estimator:
    return OnSubset(Auroc(probability, label == 1), ~np.isnan(label))


def _label_accuracy(probability: NDArray[np.float64], label: NDArray[np.float64]) -> Estimator:
    return RowMean((probability >= 0.5) == (label == 1), among=~np.isnan(label))


def _label_f1(probability: NDArray[np.float64], label: NDArray[np.float64]) -> Estimator:
    called, true = (probability >= 0.5) & ~np.isnan(label), label == 1
    return RatioOfSums(2 * (called & true), called.astype(int) + true)


def _auc_of(name: str) -> Measure:
    def estimator(predictions: pd.DataFrame) -> Estimator:
        number = classes_of(predictions).index(name)
        return _label_auc(probabilities_of(predictions)[:, number], multi_labels_of(predictions)[:, number])

    return Measure(f"AUC {name}", f"area under the ROC curve of {name}, over the cases where it is known", estimator)


def _micro_accuracy(predictions: pd.DataFrame) -> Estimator:
    label = multi_labels_of(predictions)
    known = ~np.isnan(label)
    correct = ((probabilities_of(predictions) >= 0.5) == (label == 1)) & known
    return RatioOfSums(correct.sum(axis=1), known.sum(axis=1))


def _mean_over_classes(measure: Callable[..., Estimator]) -> Callable[[pd.DataFrame], Estimator]:
    """Average over the classes with both positive and negative cases, as ``metrics.csv`` does."""

    def estimator(predictions: pd.DataFrame) -> Estimator:
        columns = zip(probabilities_of(predictions).T, multi_labels_of(predictions).T, strict=True)
        counted = [(score, label) for score, label in columns if (label == 1).any() and (label == 0).any()]
        return MeanOfMeasures([measure(*one) for one in counted], len(predictions))

    return estimator


MULTI_LABEL = {
    "auc": Measure(
        "AUC",
        "area under the ROC curve, mean over the classes, each over the cases where it is known",
        _mean_over_classes(_label_auc),
    ),
    "accuracy": Measure(
        "accuracy",
        "fraction of all known labels that are predicted correctly at a probability of 0.5 (micro)",
        _micro_accuracy,
    ),
    "balanced_accuracy": Measure(
        "balanced acc.", "this fraction for each class, mean over the classes", _mean_over_classes(_label_accuracy)
    ),
    "f1": Measure(
        "F1", "mean of the classes' F1 scores at a probability of 0.5, over known labels", _mean_over_classes(_label_f1)
    ),
}

CLASSIFICATION = {
    "auc": Measure(
        "AUC",
        "area under the ROC curve, mean of each class that occurs against the rest",
        lambda table: Auroc(probabilities_of(table), labels_of(table)),
    ),
    "accuracy": Measure(
        "accuracy", "fraction of cases whose most probable class is the true one (micro)", _of_predicted(Accuracy)
    ),
    "balanced_accuracy": Measure(
        "balanced acc.", "balanced accuracy: mean of the classes' recalls", _of_predicted(BalancedAccuracy)
    ),
    "f1": Measure("F1", "mean of the classes' F1 scores", _of_predicted(MacroF1)),
    "kappa": Measure("κ", "Cohen's κ, agreement beyond chance", _of_predicted(CohenKappa)),
    "qwk": Measure(
        "QWK",
        "quadratic weighted κ: Cohen's κ with errors weighted by their squared distance, for ordered classes",
        _of_predicted(QuadraticWeightedKappa),
    ),
    "ece": Measure(
        "ECE",
        "expected calibration error of the most probable class, 15 bins; lower is better",
        lambda table: Resampled(_ece, probabilities_of(table), labels_of(table)),
    ),
}

AT_THRESHOLD = {
    "sensitivity": Measure(
        "sens.",
        "sensitivity: fraction of the cases of the second class that reach the threshold, which each run fitted on its"
        " validation cases",
        lambda table: RowMean(_reached(table), among=labels_of(table) == 1),
    ),
    "specificity": Measure(
        "spec.",
        "specificity: fraction of the cases of the first class that stay below that threshold",
        lambda table: RowMean(~_reached(table), among=labels_of(table) == 0),
    ),
}

REGRESSION = {
    "r2": Measure(
        "R²",
        "coefficient of determination: 1 is perfect, 0 as good as the mean of the tested cases",
        _of_values(RSquared),
    ),
    "pearson": Measure("Pearson r", "linear correlation of predicted and true values", _of_values(Pearson)),
    "spearman": Measure("Spearman ρ", "correlation of their ranks", _of_values(Spearman)),
    "mae": Measure(
        "MAE", "mean absolute error, in the unit of the label table; lower is better", _of_values(MeanAbsoluteError)
    ),
}

C_INDEX = Measure(
    "C-index",
    "Harrell's: fraction of comparable pairs in which the higher risk has the earlier event",
    lambda table: Concordance(table["risk"], table["time"], table["event"]),
)

BRIER = Measure(
    "IBS",
    "integrated Brier score of the predicted survival, weighted for censoring; 0 is perfect, 0.25 a constant 0.5",
    lambda table: RowMean(table["brier"], among=np.ones(len(table))),
)
