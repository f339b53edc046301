"""Survival in discrete time: one hazard per time bin."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MetricCollection

from e2e_abmilx.data.bag import Bag, Target
from e2e_abmilx.evaluation.thresholds import Threshold, fit_median_threshold
from e2e_abmilx.losses import SurvivalNLL, survival_risk
from e2e_abmilx.metrics import ConcordanceIndex
from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.coverage import Coverage, coverage_of_survival
from e2e_abmilx.tasks.prediction import Prediction


class SurvivalTask(BagTask):
    """Survival by the negative log-likelihood over K time bins, with Harrell's C-index of the risk.

    The arguments are those of :class:`BagTask`.
    """

    target = "survival"
    monitor = "val/c_index"

    def configure_loss(self) -> nn.Module:
        """Return the discrete-time likelihood."""
        return SurvivalNLL()

    def configure_metrics(self) -> MetricCollection:
        """Return the C-index."""
        return MetricCollection({"c_index": ConcordanceIndex()})

    def coverage(self, targets: Sequence[Target], classes: Sequence[str]) -> Coverage:
        """Return whether no two cases can be compared."""
        return coverage_of_survival(targets)

    def bag_loss(self, logits: Tensor, bag: Bag) -> Tensor:
        """Return the loss of a batch."""
        loss: Tensor = self.loss(logits, bag.label, bag.event)
        return loss

    def bag_scores(self, logits: Tensor) -> Tensor:
        """Return the probability of surviving each inner edge, and the risk, shape ``(B, edges + 1)``."""
        survival = (1 - logits.sigmoid()).cumprod(dim=1)[:, : len(self.time_edges)]
        return torch.cat([survival, survival_risk(logits).unsqueeze(1)], dim=1)

    def score_names(self) -> list[str]:
        """Return one column per inner edge, in months, and one for the risk."""
        return [*(f"survival_{edge:.6g}" for edge in self.time_edges), "risk"]

    def truth_names(self) -> list[str]:
        """Return the columns of time, in months, and event."""
        return ["time", "event"]

    def truth(self, prediction: Prediction) -> list[Any]:
        """Return time and event; empty if they are unknown."""
        return ["", ""] if math.isnan(prediction.time) else [prediction.time, prediction.event]

    def fit_threshold(self, score: NDArray[Any], label: NDArray[Any]) -> Threshold:
        """Return the median risk of the validation cases, which separates risk groups."""
        return fit_median_threshold(score, split="val")

    def update_metrics(self, metrics: MetricCollection, logits: Tensor, bag: Bag) -> None:
        """Add a batch to the metrics."""
        metrics.update(survival_risk(logits), bag.time, bag.event)
