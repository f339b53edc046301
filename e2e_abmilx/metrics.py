"""Metrics that torchmetrics lacks, or defines differently for classes that do not occur."""

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
    """Return Harrell's C-index: the fraction of comparable pairs in which the case at higher risk has the earlier event.

    Args:
        risk: Higher means an earlier event, shape ``(B,)``.
        time: Months until the event or the censoring, shape ``(B,)``.
        event: 1 for an event, 0 for censoring, shape ``(B,)``.

    Returns:
        A number in [0, 1], 0.5 for random risks; NaN without a comparable pair.

    Raises:
        InputError: A value is NaN, or the lengths differ.
    """
    columns = {"risk": risk.cpu().double(), "time": time.cpu().double(), "event": event.cpu()}
    risks, times, events = aligned(**columns)
    try:
        return float(_harrell(times, -risks, events))
    except ZeroDivisionError:
        return math.nan


class ConcordanceIndex(Metric):
    """:func:`concordance_index` (Harrell's C, computed by lifelines) over all batches and processes."""

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
        """Return the C-index of all cases, a scalar."""
        columns = [dim_zero_cat(state) for state in (self.risk, self.time, self.event)]
        return torch.tensor(concordance_index(*columns), device=self.device)


class ScoredCases(Metric):
    """Score and label of every case over all batches and processes, for measures that need all cases at once."""

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
    """Mean of a measure over the classes that have both positive and negative cases among the known labels.

    torchmetrics counts other classes as 0, or fails if no label of a class is known, as happens in small splits.

    Args:
        measure: Measure of one class, called with the probabilities and labels of its known cases, each of shape
            ``(n,)``; higher is better.
    """

    higher_is_better = True

    def __init__(self, measure: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.measure = measure

    def compute(self) -> Tensor:  # type: ignore[override]  # a mean over all cases instead of the cases
        """Return the mean, a scalar; NaN if no class has both."""
        score, label = super().compute()
        columns = zip(score.T, label.T, strict=True)
        known = [(own[truth >= 0], truth[truth >= 0]) for own, truth in columns]
        values = [self.measure(own, truth) for own, truth in known if len(truth.unique()) == 2]
        return torch.stack(values).mean() if values else score.new_tensor(torch.nan)


class MeasureOfValues(ScoredCases):
    """A measure of predicted against true values, computed from all cases in float64.

    torchmetrics sums squares in float32, which is inaccurate for values with a large mean, and returns numbers for
    constant values, for which correlations and R² are undefined.

    Args:
        measure: Called with the predicted and the true values, each of shape ``(n,)``, in float64; higher is better.
        constant_scores: Whether it is defined where all predictions are the same.
    """

    higher_is_better = True

    def __init__(self, measure: Callable[[Tensor, Tensor], Tensor], *, constant_scores: bool = False) -> None:
        super().__init__()
        self.measure, self.constant_scores = measure, constant_scores

    def compute(self) -> Tensor:  # type: ignore[override]  # a measure of all cases instead of the cases
        """Return the measure, a scalar; NaN where it is undefined, as for a single case."""
        score, value = (column.cpu().double() for column in super().compute())
        columns = [value] if self.constant_scores else [score, value]
        undefined = any(bool((column == column[0]).all()) for column in columns)
        measured = torch.tensor(torch.nan) if undefined else self.measure(score, value)
        return measured.to(self.device, torch.float32)


class ClassAUC(MeanOverClasses):
    """Area under the ROC curve of each class against the rest, averaged over the classes for which it is defined.

    It is undefined for a class that has no cases or all cases; torchmetrics counts it as 0.
    """

    def __init__(self) -> None:
        super().__init__(binary_auroc)

    def update(self, score: Tensor, label: Tensor) -> None:
        """Add a batch: probabilities of shape ``(B, K)`` and classes of shape ``(B,)``."""
        super().update(score, F.one_hot(label, score.shape[1]))


class BalancedAccuracy(MulticlassConfusionMatrix):
    """Mean recall over the classes that occur as a label (balanced, or macro, accuracy).

    torchmetrics counts the recall of a class that is predicted but never a label as 0.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return the mean, a scalar."""
        matrix = super().compute()
        labelled = matrix.sum(dim=1)
        occurs = labelled > 0
        return (matrix.diagonal()[occurs] / labelled[occurs]).mean()
