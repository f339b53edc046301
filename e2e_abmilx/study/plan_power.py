"""The smallest differences that the test cases can show."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from scipy.stats import norm

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Target
from e2e_abmilx.datamodules import BagDataModule
from e2e_abmilx.evaluation.power import ALPHA, ConcordanceSpread, auc_std, correlation_std, smallest_difference
from e2e_abmilx.study.plan_cohort import PlannedCohort

#: Values that are assumed of the measures, until there are results.
AUC, CONCORDANCE, CORRELATION = 0.8, 0.65, 0.5

_Z = float(norm.ppf(1 - ALPHA / 2))


class PowerRow(NamedTuple):
    """What some test cases can show about one measure.

    Attributes:
        cases: Which cases: of the test split, or of all folds together.
        measure: Name of the measure, with the class that counts as positive.
        counts: Numbers that it depends on.
        assumed: Value that is assumed.
        half_width: Half of its 95 % interval.
        difference: Smallest improvement that a paired test finds with 80 % power; NaN if none is.
    """

    cases: str
    measure: str
    counts: dict[str, int]
    assumed: float
    half_width: float
    difference: float


def plan_power(data: BagDataModule, cohort: PlannedCohort) -> list[PowerRow]:
    """Return what the test split can show and, if it is one of several folds, what all folds can show together."""
    groups = [("test", cohort.cases["test"], cohort.targets["test"])]
    if data.plan.fold is not None and not data.plan.select_on_test:
        known = {case.id: target for split in cohort.cases for case, target in _pairs(cohort, split)}
        everyone = [case for case in cohort.everyone]
        groups.append(("all folds", everyone, [known[case.id] for case in everyone]))
    return [row for name, cases, targets in groups if cases for row in _rows(data, cohort, name, cases, targets)]


def _pairs(cohort: PlannedCohort, split: str) -> list[tuple[Case, Target]]:
    return list(zip(cohort.cases[split], cohort.targets[split], strict=True))


def _rows(
    data: BagDataModule, cohort: PlannedCohort, name: str, cases: Sequence[Case], targets: Sequence[Target]
) -> list[PowerRow]:
    kind = data.plan.target
    if kind == "survival":
        return [_survival(name, cases)]
    if kind == "regression":
        return [_regression(name, len(cases))]
    return [_auc(name, measure, *counts) for measure, counts in _classes(cohort, kind, targets).items()]


def _classes(cohort: PlannedCohort, kind: str, targets: Sequence[Target]) -> dict[str, tuple[int, int]]:
    """Return positives and negatives of each AUC: of a pair of classes there is one, of more one for each class."""
    if kind == "multi_label":
        rows = [target.label for target in targets if isinstance(target.label, tuple)]
        columns = {name: [row[k] for row in rows] for k, name in enumerate(cohort.classes)}
        return {f"AUC of {name}": (column.count(1), column.count(0)) for name, column in columns.items()}
    counts = Counter(target.label for target in targets)
    classes = list(enumerate(cohort.classes))
    chosen = classes[-1:] if len(classes) == 2 else classes
    return {f"AUC of {name}": (counts[number], len(targets) - counts[number]) for number, name in chosen}


def _auc(name: str, measure: str, positives: int, negatives: int) -> PowerRow:
    counts = {"positives": positives, "negatives": negatives}
    if not positives or not negatives:
        return PowerRow(name, measure, counts, AUC, math.nan, math.nan)

    def std_at(auc: float) -> float:
        return auc_std(auc, positives, negatives)

    return PowerRow(name, measure, counts, AUC, _Z * std_at(AUC), smallest_difference(std_at, AUC))


def _survival(name: str, cases: Sequence[Case]) -> PowerRow:
    events = sum(case.event for case in cases)
    counts = {"cases": len(cases), "events": events}
    if events < 2 or len(cases) < 3:
        return PowerRow(name, "C-index", counts, CONCORDANCE, math.nan, math.nan)
    std_at = ConcordanceSpread([case.time for case in cases], [case.event for case in cases])
    difference = smallest_difference(std_at, CONCORDANCE)
    return PowerRow(name, "C-index", counts, CONCORDANCE, _Z * std_at(CONCORDANCE), difference)


def _regression(name: str, count: int) -> PowerRow:
    std, z = correlation_std(count), math.atanh(CORRELATION)
    if math.isnan(std):
        return PowerRow(name, "correlation", {"cases": count}, CORRELATION, math.nan, math.nan)
    half_width = (math.tanh(z + _Z * std) - math.tanh(z - _Z * std)) / 2
    further = smallest_difference(lambda _: std, z, largest=10.0)
    return PowerRow(
        name, "correlation", {"cases": count}, CORRELATION, half_width, math.tanh(z + further) - CORRELATION
    )


def describe_power(rows: Sequence[PowerRow]) -> list[dict[str, Any]]:
    """Return the rows as JSON holds them."""
    return [{key: _plain(value) for key, value in row._asdict().items()} for row in rows]


def _plain(value: Any) -> Any:  # noqa: ANN401
    return None if isinstance(value, float) and math.isnan(value) else value
