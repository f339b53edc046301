"""Slide-level classification."""

from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCohenKappa,
    MulticlassF1Score,
)

from e2e_abmilx.bags import Bag
from e2e_abmilx.tasks.base import BagTask


class ClassificationTask(BagTask):
    """Cross-entropy over K classes; AUC (macro, one against the rest), accuracy, F1 and quadratic κ.

    The arguments are those of :class:`BagTask`.
    """

    monitor = "val/auc"

    def configure_loss(self) -> nn.Module:
        """Return the cross-entropy."""
        return nn.CrossEntropyLoss()

    def configure_metrics(self) -> MetricCollection:
        """Return AUC, macro and micro accuracy, macro F1 and quadratic κ."""
        classes = self.num_outputs
        return MetricCollection(
            {
                "auc": MulticlassAUROC(classes),
                "accuracy": MulticlassAccuracy(classes, average="micro"),
                "accuracy_macro": MulticlassAccuracy(classes, average="macro"),
                "f1": MulticlassF1Score(classes, average="macro"),
                "kappa_quadratic": MulticlassCohenKappa(classes, weights="quadratic"),
            }
        )

    def bag_loss(self, logits: Tensor, bag: Bag) -> Tensor:
        """Return the loss of a batch."""
        loss: Tensor = self.loss(logits, bag.label)
        return loss

    def bag_classes(self, bag: Bag) -> Tensor:
        """Return the labels."""
        return bag.label

    def bag_scores(self, logits: Tensor) -> Tensor:
        """Return the class probabilities, shape ``(B, K)``."""
        return logits.softmax(dim=1)

    def score_names(self) -> list[str]:
        """Return a column name for each class."""
        return [f"probability_{name}" for name in self.classes]

    def update_metrics(self, metrics: MetricCollection, logits: Tensor, bag: Bag) -> None:
        """Add a batch to the metrics."""
        metrics.update(logits.softmax(dim=1), bag.label)
