"""Survival in discrete time."""

from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MetricCollection

from e2e_abmilx.bags import Bag
from e2e_abmilx.evaluation.thresholds import Threshold, fit_median_threshold
from e2e_abmilx.losses import SurvivalNLL, survival_risk
from e2e_abmilx.metrics import ConcordanceIndex
from e2e_abmilx.tasks.base import BagTask


class SurvivalTask(BagTask):
    """Negative log-likelihood over K time bins; Harrell's C-index of the risk.

    The arguments are those of :class:`BagTask`.
    """

    monitor = "val/c_index"

    def configure_loss(self) -> nn.Module:
        """Return the discrete-time likelihood."""
        return SurvivalNLL()

    def configure_metrics(self) -> MetricCollection:
        """Return the C-index."""
        return MetricCollection({"c_index": ConcordanceIndex()})

    def bag_loss(self, logits: Tensor, bag: Bag) -> Tensor:
        """Return the loss of a batch."""
        loss: Tensor = self.loss(logits, bag.label, bag.event)
        return loss

    def bag_scores(self, logits: Tensor) -> Tensor:
        """Return the risk, shape ``(B, 1)``."""
        return survival_risk(logits).unsqueeze(1)

    def score_names(self) -> list[str]:
        """Return the one column name."""
        return ["risk"]

    def fit_threshold(self, score: NDArray[Any], label: NDArray[Any]) -> Threshold:
        """Return the median risk of the validation cases, which parts risk groups."""
        return fit_median_threshold(score, split="val")

    def update_metrics(self, metrics: MetricCollection, logits: Tensor, bag: Bag) -> None:
        """Add a batch to the metrics."""
        metrics.update(survival_risk(logits), bag.time, bag.event)
