"""Coverage: which metrics are undefined for the cases of a split, because some kind of case is missing."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from e2e_abmilx.data.bag import Target
from e2e_abmilx.metrics import concordance_index


class Coverage(NamedTuple):
    """What the cases of a split leave undefined.

    Attributes:
        undefined: Undefined metrics, by their names without ``val/`` or ``test/``, each with the reason.
        notes: What else is missing.
    """

    undefined: dict[str, str] = {}  # noqa: RUF012 - never modified
    notes: tuple[str, ...] = ()


def coverage_of_classes(targets: Sequence[Target], classes: Sequence[str]) -> Coverage:
    """Return which classes have no case, and whether all cases have the same class."""
    labels = [target.label for target in targets if target.label != -1]
    absent = [name for number, name in enumerate(classes) if number not in labels]
    if not labels or not absent:
        return Coverage()
    if len(absent) == len(classes) - 1:
        (only,) = set(classes) - set(absent)
        cases = f"all {len(labels)} cases are" if len(labels) > 1 else "its only case is"
        return Coverage(dict.fromkeys(("auc", "kappa", "qwk"), f"{cases} of class {only}"))
    note = f"no case of class {', '.join(absent)}: AUC and balanced accuracy are means over the others"
    return Coverage(notes=(note,))


def coverage_of_labels(targets: Sequence[Target], classes: Sequence[str]) -> Coverage:
    """Return which of several labels have no positive or no negative case."""
    labels = [target.label for target in targets if isinstance(target.label, tuple)]
    if not labels:
        return Coverage()
    columns = zip(classes, zip(*labels, strict=True), strict=True)
    one_sided = [name for name, column in columns if not {0, 1} <= {*column}]
    if len(one_sided) == len(classes):
        reason = "no class has both positive and negative cases"
        return Coverage(dict.fromkeys(("auc", "average_precision", "balanced_accuracy", "f1"), reason))
    if not one_sided:
        return Coverage()
    missing = f"no positive or no negative case of {', '.join(one_sided)}"
    return Coverage(notes=(f"{missing}: means over classes are over the others",))


def coverage_of_values(targets: Sequence[Target]) -> Coverage:
    """Return whether all cases of a regression have the same value, or there is only one."""
    values = [target.label for target in targets if isinstance(target.label, float) and not math.isnan(target.label)]
    if not values or len(set(values)) > 1:
        return Coverage()
    cases = f"all {len(values)} cases have" if len(values) > 1 else "its only case has"
    return Coverage(dict.fromkeys(("r2", "pearson", "spearman"), f"{cases} the value {values[0]:g}"))


def coverage_of_survival(targets: Sequence[Target]) -> Coverage:
    """Return whether no two cases can be compared, such as in a split without events."""
    known = [target for target in targets if not math.isnan(target.time)]
    if not known:
        return Coverage()
    events = sum(target.event for target in known)
    columns = torch.tensor([[target.time, target.event] for target in known], dtype=torch.float64)
    if not math.isnan(concordance_index(torch.zeros(len(known)), columns[:, 0], columns[:, 1])):
        return Coverage()
    return Coverage({"c_index": f"no two of its {len(known)} cases, {events} with an event, can be compared"})
