"""Targets as numbers: classes, several labels per case, time bins, or the numbers of a regression."""

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import CohortError, suggest
from e2e_abmilx.cohort.time_bins import BinSource, time_bins, time_edges

logger = logging.getLogger(__name__)


class NumberedTargets(NamedTuple):
    """The targets of a cohort.

    Attributes:
        numbers: Class, labels, time bin or, for regression, the value of each case.
        classes: The classes in order, or ``("0", …)`` for time bins.
        edges: Inner edges of the time bins, months.
    """

    numbers: Sequence[int | float | tuple[int, ...]]
    classes: tuple[str, ...]
    edges: tuple[float, ...] = ()


def encode_labels(cases: Sequence[Case], classes: Sequence[str] | None) -> tuple[list[int], tuple[str, ...]]:
    """Return the class number of each case, and the classes in order.

    If ``classes`` is None, they are those of the cohort, sorted (numbers by value).

    Raises:
        CohortError: A label is missing, or is not one of the classes.
    """
    unlabelled = [case.id for case in cases if not case.label]
    if unlabelled:
        raise CohortError(
            f"{len(unlabelled)} of {len(cases)} cases have no label, first {unlabelled[0]} (NA, None, - and the like mean"
            " none); complete the table, remove their rows, or say which column is the label with columns:"
            " {label: NAME}"
        )
    found = sorted({case.label for case in cases}, key=_numbers_first)
    order = tuple(map(str, classes)) if classes is not None else tuple(found)
    unknown = [label for label in found if label not in order]
    if unknown:
        example = next(case for case in cases if case.label == unknown[0])
        raise CohortError(
            f"label {unknown[0]!r}{suggest(unknown[0], order)} of case {example.id} is not one of the classes"
            f" {list(order)}; correct the table or the list of classes"
        )
    return [order.index(case.label) for case in cases], order


def encode_multi_labels(
    cases: Sequence[Case], classes: Sequence[str], *, trained: bool = False
) -> list[tuple[int, ...]]:
    """Return the labels of a multi-label cohort: per class 1, 0, or -1 where it is unknown.

    The classes are in the order of each case's labels. If ``trained``, they are those of a trained model, and a cohort
    need not know all of them.

    Raises:
        CohortError: A case has no known label, or a class is unknown in all cases.
    """
    unlabelled = [case.id for case in cases if max(case.labels) < 0]
    if unlabelled:
        raise CohortError(
            f"{len(unlabelled)} of {len(cases)} cases have no known label, first {unlabelled[0]}; complete the columns"
            f" {', '.join(classes)}, or remove their rows"
        )
    for name, column in zip(classes, zip(*(case.labels for case in cases), strict=True), strict=True):
        if max(column) < 0 and not trained:
            raise CohortError(
                f"class {name!r} is unknown in all {len(cases)} cases; complete its column, or remove it from the classes"
            )
    return [case.labels for case in cases]


def encode_values(cases: Sequence[Case], *, table: object = "the label table") -> list[float]:
    """Return the value of each case of a regression cohort.

    Raises:
        CohortError: A value is missing.
    """
    unknown = [case.id for case in cases if math.isnan(case.value)]
    if unknown:
        raise CohortError(
            f"{table}: {len(unknown)} of {len(cases)} cases have no value, first {unknown[0]} (NA, None, - and the like"
            " mean none); complete the table, remove their rows, or say which column holds the numbers with columns:"
            " {label: NAME}"
        )
    return [case.value for case in cases]


def encode_times(
    cases: Sequence[Case],
    num_bins: int,
    bins: BinSource,
    *,
    table: object = "the label table",
    edges: Sequence[float] | None = None,
) -> NumberedTargets:
    """Number the time bins of a survival cohort, with the arguments of :func:`time_edges`.

    If ``edges`` are given, such as those of a trained model, they are used instead of the cohort's own.

    Raises:
        CohortError: A case has no time, or the events cannot fill the bins.
    """
    unknown = [case.id for case in cases if math.isnan(case.time)]
    if unknown:
        raise CohortError(f"{len(unknown)} cases have no survival time, first {unknown[0]}; complete {table}")
    if edges is not None:
        return _number_times(cases, np.asarray(edges, dtype=float))
    if bins == "cohort":
        logger.warning(
            "bins: cohort derives the time bins from events of the test cases too; use it only to reproduce results of"
            " others"
        )
    return _number_times(cases, time_edges(cases, num_bins, bins=bins))


def _number_times(cases: Sequence[Case], edges: np.ndarray) -> NumberedTargets:
    numbers: list[int] = time_bins([case.time for case in cases], edges).tolist()
    return NumberedTargets(numbers, tuple(map(str, range(len(edges) + 1))), tuple(map(float, edges)))


def _numbers_first(label: str) -> tuple[float, str]:
    """Return a sort key: numbers by value, then all other labels."""
    try:
        return float(label), label
    except ValueError:
        return math.inf, label
