"""What the cases of a split cannot tell, because some kind of them is missing."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from e2e_abmilx.data.bag import Target
from e2e_abmilx.metrics import concordance_index


class Coverage(NamedTuple):
    """What the cases of a split cannot tell.

    Attributes:
        undefined: Metrics that have no value there, by their names without ``val/`` or ``test/``, and why.
        notes: What else is missing.
    """

    undefined: dict[str, str] = {}  # noqa: RUF012 - nobody adds to it
    notes: tuple[str, ...] = ()


def coverage_of_classes(targets: Sequence[Target], classes: Sequence[str]) -> Coverage:
    """Say which classes no case is of, and whether all cases are of one."""
    labels = [target.label for target in targets if target.label != -1]
    absent = [name for number, name in enumerate(classes) if number not in labels]
    if not labels or not absent:
        return Coverage()
    if len(absent) == len(classes) - 1:
        (only,) = set(classes) - set(absent)
        cases = f"all {len(labels)} cases are" if len(labels) > 1 else "its only case is"
        return Coverage(dict.fromkeys(("auc", "kappa", "qwk"), f"{cases} of class {only}"))
    return Coverage(
        notes=(f"no case of class {', '.join(absent)}: AUC and balanced accuracy are means over the others",)
    )


def coverage_of_labels(targets: Sequence[Target], classes: Sequence[str]) -> Coverage:
    """Say of which of several labels positive or negative cases are missing."""
    labels = [target.label for target in targets if isinstance(target.label, tuple)]
    if not labels:
        return Coverage()
    one_sided = [
        name
        for name, column in zip(classes, zip(*labels, strict=True), strict=True)
        if not {0, 1} <= {*column}
    ]
    if len(one_sided) == len(classes):
        reason = "no class has both positive and negative cases"
        return Coverage(dict.fromkeys(("auc", "average_precision", "balanced_accuracy", "f1"), reason))
    if one_sided:
        return Coverage(
            notes=(
                f"no positive or no negative case of {', '.join(one_sided)}: means over classes are over the others",
            )
        )
    return Coverage()


def coverage_of_survival(targets: Sequence[Target]) -> Coverage:
    """Say whether no two cases can be compared, as where no event was seen."""
    known = [target for target in targets if not math.isnan(target.time)]
    if not known:
        return Coverage()
    events = sum(target.event for target in known)
    columns = torch.tensor([[target.time, target.event] for target in known], dtype=torch.float64)
    if math.isnan(concordance_index(torch.zeros(len(known)), columns[:, 0], columns[:, 1])):
        return Coverage(
            {"c_index": f"no two of its {len(known)} cases, {events} with an event, can be compared"}
        )
    return Coverage()
