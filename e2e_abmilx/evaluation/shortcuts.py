"""Whether something that should not matter, such as the hospital, predicts the truth, or is predicted by a model.

A prediction is cross-validated and its association with the truth is tested by permutations. Letters: n rows, one per
patient; K columns of the truth.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import Estimate, bootstrap
from e2e_abmilx.evaluation.concordance import Concordance
from e2e_abmilx.evaluation.estimators import Estimator
from e2e_abmilx.evaluation.permutation import permutation_p_value
from e2e_abmilx.evaluation.regression import Spearman
from e2e_abmilx.evaluation.smoothers import Smoother
from e2e_abmilx.evaluation.within_strata import AurocWithinStrata

FEWEST_ROWS = 30
FEWEST_COUNTED = 10  # rows of a category, outside it, or with an event
FEWEST_KNOWN = 5  # rows of a value from which others of the value are predicted
_MOST_STRATA = 10


class TooFewError(InputError):
    """There are too few rows, or too few that differ, to judge."""


class Truth(NamedTuple):
    """What is to be predicted.

    Attributes:
        measure: ``"auc"``, ``"c_index"`` or ``"spearman"``.
        chance: The measure of a prediction that is not associated with the truth.
        relevant: The least measure that matters in practice.
        columns: Truth that a smoother averages, shape ``(n, K)``; of classes, differences from the mean of the stratum.
        stratum: Rows are permuted within their stratum, shape ``(n,)``.
        estimator: Creates the measure from predictions, shape ``(n, K)``, of the truth in an order, shape ``(n,)``.
    """

    measure: str
    chance: float
    relevant: float
    columns: NDArray[np.float64]
    stratum: NDArray[np.int64]
    estimator: Callable[[NDArray[np.float64], NDArray[np.int64]], Estimator]


class Association(NamedTuple):
    """How well the truth is predicted.

    Attributes:
        estimate: The measure, with an interval over rows whose predictions are held fixed.
        p_value: Of the permutation test, one-sided, for no association.
    """

    estimate: Estimate
    p_value: float


def associate(smooth: Smoother, truth: Truth) -> Association:
    """Predict each row from the others, and measure the prediction."""
    rows = len(truth.columns)
    once = np.ones(rows, np.int64)

    def measure(order: NDArray[np.int64]) -> Estimator:
        return truth.estimator(smooth(truth.columns[order]), order)

    p_value = permutation_p_value(lambda order: measure(order)(once), truth.stratum)
    return Association(bootstrap(measure(np.arange(rows)), list(map(str, range(rows)))), p_value)


def classes_as_truth(category: ArrayLike, fold: NDArray[np.int64], stratum: ArrayLike | None = None) -> Truth:
    """Return classes as the truth, measured by the AUC of pairs within a fold and a stratum.

    Pairs of different folds would bring the area of a prediction of nothing below 0.5: where a fold has more rows of a
    class than the others, those predict fewer. Counted are the classes that have ten rows, and ten rows of other classes
    to compare with.

    Args:
        category: Of each row, shape ``(n,)``.
        fold: Of each row, in the cross-validation, shape ``(n,)``.
        stratum: Such as the label, where the classes are sites, shape ``(n,)``; a site that the label predicts is then
            not taken for one that the model sees.

    Raises:
        TooFewError: There are fewer than 30 rows, or no class is counted.
    """
    names, number = np.unique(np.asarray(category), return_inverse=True)
    strata = np.zeros(len(number), np.int64)
    if stratum is not None:
        strata = np.unique(np.asarray(stratum), return_inverse=True)[1]
    _refuse_few(len(number))
    if len(names) == 1:
        raise TooFewError(f"all {len(number)} cases have the value {names[0]}")
    member = number[:, None] == np.arange(len(names))
    share = np.stack([np.bincount(strata, one) / np.bincount(strata) for one in member.T], axis=1)
    counted = [one for one in range(len(names)) if _least_compared(member[:, one], strata) >= FEWEST_COUNTED]
    if not counted:
        within = "" if stratum is None else " within classes of the truth"
        raise TooFewError(
            f"no value has {FEWEST_COUNTED} cases and {FEWEST_COUNTED} of other values to compare them with{within}"
        )
    compared = strata * (fold.max() + 1) + fold
    return Truth(
        "auc", 0.5, 0.6, member - share[strata], strata,
        lambda predicted, order: AurocWithinStrata(predicted, number[order], compared, counted),
    )  # fmt: skip


def survival_as_truth(time: ArrayLike, event: ArrayLike) -> Truth:
    """Return times and events, shape ``(n,)`` each, as the truth, measured by the C-index; see `martingale_residuals`.

    Raises:
        TooFewError: There are fewer than 30 rows, or fewer than 10 events.
    """
    times, events = np.asarray(time, np.float64), np.asarray(event, np.int64)
    _refuse_few(len(times))
    if events.sum() < FEWEST_COUNTED:
        raise TooFewError(f"{events.sum()} events; at least {FEWEST_COUNTED} are needed")
    return Truth(
        "c_index", 0.5, 0.6, martingale_residuals(times, events)[:, None], np.zeros(len(times), np.int64),
        lambda predicted, order: Concordance(predicted[:, 0], times[order], events[order]),
    )  # fmt: skip


def values_as_truth(value: ArrayLike) -> Truth:
    """Return numbers, shape ``(n,)``, as the truth, measured by Spearman's correlation.

    Raises:
        TooFewError: There are fewer than 30 rows, or all have the same value.
    """
    values = np.asarray(value, np.float64)
    _refuse_few(len(values))
    if np.ptp(values) == 0:
        raise TooFewError(f"all {len(values)} cases have the value {values[0]:g}")
    return Truth(
        "spearman", 0.0, 0.2, values[:, None], np.zeros(len(values), np.int64),
        lambda predicted, order: Spearman(predicted[:, 0], values[order]),
    )  # fmt: skip


def refuse_uninformative(category: ArrayLike) -> None:
    """Refuse a column, shape ``(n,)``, from which nothing can be predicted.

    Raises:
        TooFewError: Fewer than two of its values have five rows.
    """
    names, counts = np.unique(np.asarray(category), return_counts=True)
    if len(names) == 1:
        raise TooFewError(f"all {counts[0]} cases have the value {names[0]}")
    if (counts >= FEWEST_KNOWN).sum() < 2:
        raise TooFewError(f"fewer than two of its {len(names)} values have {FEWEST_KNOWN} cases each")


def martingale_residuals(time: NDArray[np.float64], event: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the events of each row beyond those expected until its time, from the Nelson–Aalen estimate: ``(n,)``.

    They are large for early events, and are the score of Cox's model without covariates (Therneau et al. 1990,
    Martingale-based residuals for survival models).
    """
    moments, place = np.unique(time, return_inverse=True)
    events, left = np.bincount(place, event, len(moments)), np.bincount(place, minlength=len(moments))
    at_risk = np.cumsum(left[::-1])[::-1]
    residuals: NDArray[np.float64] = event - np.cumsum(events / at_risk)[place]
    return residuals


def strata_of(column: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return up to ten strata of similar numbers, of ten rows or more, shape ``(n,)``."""
    number = max(1, min(_MOST_STRATA, len(column) // FEWEST_COUNTED))
    edges = np.quantile(column, np.arange(1, number) / number)
    return np.searchsorted(edges, column, side="right").astype(np.int64)


def _refuse_few(rows: int) -> None:
    if rows < FEWEST_ROWS:
        raise TooFewError(f"{rows} cases; at least {FEWEST_ROWS} are needed, one per patient")


def _least_compared(member: NDArray[np.bool_], stratum: NDArray[np.int64]) -> int:
    """Return the number of members or of others, whichever is smaller, in strata that have both."""
    own, others = np.bincount(stratum, member), np.bincount(stratum, ~member)
    both = (own > 0) & (others > 0)
    return int(min(own[both].sum(), others[both].sum()))
