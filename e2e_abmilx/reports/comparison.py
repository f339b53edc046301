"""The comparison of two sets of runs on the cases that both have tested."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.bootstrap import Difference, paired_bootstrap
from e2e_abmilx.reports.measures import Measure
from e2e_abmilx.reports.summary import find_overlap, pool
from e2e_abmilx.runs.read import Run


class ComparedMeasure(NamedTuple):
    """A measure of the first and of the second set on the shared cases, and the first minus the second."""

    first: float
    second: float
    difference: Difference


class Comparison(NamedTuple):
    """The comparison of two sets of runs.

    Attributes:
        cases: Number of shared cases.
        only_first: Number of cases that only the first set has tested.
        only_second: Number of cases that only the second set has tested.
        compared: The measures, by name.
    """

    cases: int
    only_first: int
    only_second: int
    compared: dict[str, ComparedMeasure]


def compare_on_shared_cases(runs: Sequence[Run], against: Sequence[Run], measures: Mapping[str, Measure]) -> Comparison:
    """Compare two sets of runs by the paired bootstrap, in measures that both have.

    Raises:
        InputError: If a set tests a case twice, the sets share no case, or they differ in the truth of a shared case.
    """
    first, second = _pool_once(runs), _pool_once(against)
    shared = first.index.intersection(second.index).sort_values()
    if shared.empty:
        raise InputError(
            f"the runs share no case: the first set tests {first.index[0]}, the second {second.index[0]}, …;"
            " compare runs of one cohort, with the same case names"
        )
    one, two = first.loc[shared], second.loc[shared]
    refuse_different_truth(one, two)
    once, cases = np.ones(len(shared), dtype=np.int64), shared.tolist()
    compared = {}
    for name, measure in measures.items():
        ours, theirs = measure.estimator(one), measure.estimator(two)
        compared[name] = ComparedMeasure(ours(once), theirs(once), paired_bootstrap(ours, theirs, cases))
    return Comparison(len(shared), len(first) - len(shared), len(second) - len(shared), compared)


def refuse_different_truth(one: pd.DataFrame, two: pd.DataFrame) -> None:
    """Refuse predictions of the same cases whose labels, values, times or events differ.

    Raises:
        InputError: If they differ.
    """
    for name in (name for name in ("label", "value", "time", "event") if name in one):
        differs = one[name] != two[name]
        if differs.any():
            case = one.index[differs][0]
            raise InputError(
                f"{differs.sum()} of {len(one)} shared cases differ in their {name}, first {case}:"
                f" {one.at[case, name]!r} and {two.at[case, name]!r}; compare runs of the same label table"
            )


def _pool_once(runs: Sequence[Run]) -> pd.DataFrame:
    overlap = find_overlap(runs)
    if overlap:
        raise InputError(
            f"{overlap}, and a comparison takes one prediction per case; compare the folds of one"
            " cross-validation, or a run with a run"
        )
    return pool(runs)
