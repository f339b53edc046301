"""Metrics that torchmetrics does not have."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from lifelines.utils import concordance_index as _harrell
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

from e2e_abmilx.evaluation.columns import aligned


def concordance_index(risk: Tensor, time: Tensor, event: Tensor) -> float:
    """Harrell's C-index: the share of comparable pairs in which the higher risk meets the earlier event.

    Args:
        risk: Higher means an earlier event, shape ``(B,)``.
        time: Months until the event or the censoring, shape ``(B,)``.
        event: 1 where the event happened, 0 where it was censored, shape ``(B,)``.

    Returns:
        A number in [0, 1], 0.5 for random risks; NaN where no pair can be compared.

    Raises:
        InputError: If a value is NaN or the lengths differ.
    """
    columns = {"risk": risk.double().cpu(), "time": time.double().cpu(), "event": event.cpu()}
    risks, times, events = aligned(**columns)
    try:
        return float(_harrell(times, -risks, events))
    except ZeroDivisionError:
        return math.nan


class ConcordanceIndex(Metric):
    """:func:`concordance_index` (Harrell's C, lifelines' estimator) over all batches and processes."""

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    risk: list[Tensor]
    time: list[Tensor]
    event: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("risk", "time", "event"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, risk: Tensor, time: Tensor, event: Tensor) -> None:
        """Add a batch: risk, months and events, each of shape ``(B,)``."""
        self.risk.append(risk.detach())
        self.time.append(time)
        self.event.append(event)

    def compute(self) -> Tensor:
        """Return the C-index of everything added, a scalar."""
        columns = [dim_zero_cat(state) for state in (self.risk, self.time, self.event)]
        return torch.tensor(concordance_index(*columns), device=self.device)


class ScoredCases(Metric):
    """Score and label of every case over all batches and processes, for what is computed from all of them at once."""

    full_state_update = False

    score: list[Tensor]
    label: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("score", "label"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, score: Tensor, label: Tensor) -> None:
        """Add a batch: scores and labels, each of shape ``(B,)``."""
        self.score.append(score.detach())
        self.label.append(label)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return all scores and labels, each of shape ``(n,)``."""
        return dim_zero_cat(self.score), dim_zero_cat(self.label)


class MeanOverClasses(ScoredCases):
    """The mean of a measure over those classes that have both positive and negative cases among the known ones.

    torchmetrics counts the other classes as 0, or fails where nothing is known of one, and so would small validation
    splits.

    Args:
        measure: Of one class, called with probabilities and labels of the cases where it is known, shape ``(n,)``; more
            of it is better.
    """

    higher_is_better = True

    def __init__(self, measure: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.measure = measure

    def compute(self) -> Tensor:  # type: ignore[override]  # one number of all cases instead of the cases
        """Return the mean, a scalar; NaN where no class has both."""
        score, label = super().compute()
        columns = zip(score.T, label.T, strict=True)
        known = [(own[truth >= 0], truth[truth >= 0]) for own, truth in columns]
        values = [self.measure(own, truth) for own, truth in known if len(truth.unique()) == 2]
        return torch.stack(values).mean() if values else score.new_tensor(torch.nan)


class ClassAUC(MeanOverClasses):
    """Area under the ROC curve of each class against the rest, mean over the classes that occur.

    A class that no case is of, or all are of, has no such area; torchmetrics counts it as 0.
    """

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__(binary_auroc)

    def update(self, score: Tensor, label: Tensor) -> None:
        """Add a batch: probabilities of shape ``(B, K)`` and classes of shape ``(B,)``."""
        super().update(score, F.one_hot(label, score.shape[1]))


class BalancedAccuracy(MulticlassConfusionMatrix):
    """Mean of the classes' recalls, over the classes that occur as a label (balanced, or macro, accuracy).

    torchmetrics counts a class that is only ever predicted as a recall of 0.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return the mean, a scalar."""
        matrix = super().compute()
        labelled = matrix.sum(dim=1)
        occurs = labelled > 0
        return (matrix.diagonal()[occurs] / labelled[occurs]).mean()
