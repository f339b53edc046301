"""The measures of each group of external cases, such as each site or scanner."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import Estimate
from e2e_abmilx.io.tables import is_missing
from e2e_abmilx.reports.measures import Measure, classes_of, has_multi_labels
from e2e_abmilx.reports.summary import estimate

UNKNOWN = "unknown"  # the group of the cases without a value
FEWEST_CASES = 10  # fewer have no measures: their intervals would be too narrow and mislead

_UNDEFINED = Estimate(math.nan, math.nan, math.nan, math.nan, math.nan, 0, 0)


class Group(NamedTuple):
    """The cases that share a value of a column.

    Attributes:
        column: Name of the column.
        value: The value.
        cases: Number of cases.
        counts: Number of cases of each class, or of ``events``; empty for other tasks.
        estimates: The measures, by name; NaN where the group has too few cases or only one class.
    """

    column: str
    value: str
    cases: int
    counts: dict[str, int]
    estimates: dict[str, Estimate]


def measure_groups(predictions: pd.DataFrame, groups: pd.DataFrame, measures: Mapping[str, Measure]) -> list[Group]:
    """Measure the groups of each column, in the order of its values; the unknown ones come last.

    Args:
        predictions: In the form of :attr:`e2e_abmilx.runs.read.Run.predictions`.
        groups: Value of each case in each column, indexed by case. A case that is absent or whose value is missing is in
            the group ``unknown``.
        measures: Those of the predictions, by name, of which `group_measures` are used.

    Raises:
        InputError: If the groups have a case or a column twice, or none of the cases.
    """
    _refuse_malformed(groups, predictions)
    chosen = {name: measures[name] for name in group_measures(measures)}
    return [one for column in groups for one in _measure_column(predictions, groups[column], chosen)]


def group_measures(measures: Mapping[str, Measure]) -> list[str]:
    """Return the names of the first measures: discrimination, decisions and calibration."""
    decisions = ["sensitivity", "specificity"] if "sensitivity" in measures else ["balanced_accuracy"]
    ratios = [name for name in measures if name.startswith("observed_expected_")]
    wanted = ["auc", "c_index", *decisions, "ece", *ratios[-1:]]
    return [name for name in wanted if name in measures] or list(measures)[:3]


def _refuse_malformed(groups: pd.DataFrame, predictions: pd.DataFrame) -> None:
    for noun, names in {"case": groups.index, "column": groups.columns}.items():
        if names.has_duplicates:
            raise InputError(f"the groups have the {noun} {names[names.duplicated()][0]} twice; give it once")
    if groups.shape[1] and not groups.index.isin(predictions.index).any():
        raise InputError(
            f"the groups have none of the {len(predictions)} cases: their first case is"
            f" {next(iter(groups.index), 'missing')}, that of the predictions {predictions.index[0]}; use the same names"
        )


def _measure_column(predictions: pd.DataFrame, column: pd.Series, measures: Mapping[str, Measure]) -> Iterator[Group]:
    words = np.array([_word(value) for value in column.reindex(predictions.index)])
    for value in sorted(set(words), key=_place):
        members = predictions[words == value]
        counts = _counts(members)
        comparable = len(members) >= FEWEST_CASES and _can_be_compared(members, counts)
        estimates = estimate(members, measures) if comparable else dict.fromkeys(measures, _UNDEFINED)
        yield Group(str(column.name), value, len(members), counts, estimates)


def _place(word: str) -> tuple[bool, list[str | int]]:
    """Return a key that sorts site 2 before site 10, and the unknown last."""
    return word == UNKNOWN, [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", word)]


def _word(value: object) -> str:
    """Return the name of a group: its text, a whole number without decimals."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return UNKNOWN if is_missing(text) else text


def _counts(members: pd.DataFrame) -> dict[str, int]:
    if "risk" in members:
        return {"events": int(members["event"].sum())}
    if has_multi_labels(members):
        return {name: int((members[f"label_{name}"] == 1).sum()) for name in classes_of(members)}
    return {name: int((members["label"] == name).sum()) for name in classes_of(members)}


def _can_be_compared(members: pd.DataFrame, counts: Mapping[str, int]) -> bool:
    """Return whether there are events, or cases of two classes."""
    if "risk" in members:
        return counts["events"] > 0
    if has_multi_labels(members):
        return any(members[f"label_{name}"].nunique() == 2 for name in counts)
    return not counts or sum(map(bool, counts.values())) > 1
