"""Slide-level classification where a case may be of several classes at once."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelAccuracy
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_auroc,
    binary_average_precision,
    binary_f1_score,
)

from e2e_abmilx.data.bag import Bag, Target
from e2e_abmilx.losses import MaskedBCE
from e2e_abmilx.metrics import MeanOverClasses
from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.coverage import Coverage, coverage_of_labels
from e2e_abmilx.tasks.prediction import Prediction


class MultiLabelTask(BagTask):
    """Binary cross-entropy of each of K classes; AUC, average precision, accuracy and F1.

    Unknown labels have no part in the loss and in the metrics. A class is called from a probability of 0.5 on.

    The arguments are those of :class:`BagTask`.
    """

    target = "multi_label"
    monitor = "val/auc"
    has_threshold = False

    def configure_loss(self) -> nn.Module:
        """Return the cross-entropy of the known labels."""
        return MaskedBCE()

    def configure_metrics(self) -> MetricCollection:
        """Return the means over classes of AUC, average precision, accuracy and F1, and the micro accuracy."""
        return MetricCollection(
            {
                "auc": MeanOverClasses(binary_auroc),
                "average_precision": MeanOverClasses(binary_average_precision),
                "accuracy": MultilabelAccuracy(self.num_outputs, average="micro", ignore_index=-1),
                "balanced_accuracy": MeanOverClasses(binary_accuracy),
                "f1": MeanOverClasses(binary_f1_score),
            },
            compute_groups=False,  # metrics of a group copy all cases so far at each one that is logged
        )

    def coverage(self, targets: Sequence[Target], classes: Sequence[str]) -> Coverage:
        """Say which classes lack positive or negative cases."""
        return coverage_of_labels(targets, classes)

    def bag_loss(self, logits: Tensor, bag: Bag) -> Tensor:
        """Return the loss of a batch."""
        loss: Tensor = self.loss(logits, bag.label)
        return loss

    def bag_scores(self, logits: Tensor) -> Tensor:
        """Return the probability of each class by itself, shape ``(B, K)``."""
        return logits.sigmoid()

    def score_names(self) -> list[str]:
        """Return a column name for each class."""
        return [f"probability_{name}" for name in self.classes]

    def truth_names(self) -> list[str]:
        """Return a column for the label of each class."""
        return [f"label_{name}" for name in self.classes]

    def truth(self, prediction: Prediction) -> list[Any]:
        """Return the labels, 1 or 0; empty where they are unknown."""
        labels = prediction.label if isinstance(prediction.label, tuple) else [-1] * self.num_outputs
        return ["" if label < 0 else label for label in labels]

    def update_metrics(self, metrics: MetricCollection, logits: Tensor, bag: Bag) -> None:
        """Add a batch to the metrics."""
        metrics.update(logits.sigmoid(), bag.label)
