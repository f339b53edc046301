"""Slide-level classification with several labels per case."""

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

from e2e_abmilx.data.bag import Target
from e2e_abmilx.losses import MaskedBCE
from e2e_abmilx.metrics import MeanOverClasses
from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.coverage import Coverage, coverage_of_labels
from e2e_abmilx.tasks.prediction import Prediction


class MultiLabelTask(BagTask):
    """Classification by the binary cross-entropy of each class, with AUC, average precision, accuracy and F1.

    Loss and metrics ignore unknown labels. A class is predicted if its probability is at least 0.5.

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
            compute_groups=False,  # metrics in a group copy all cases so far each time that one is logged
        )

    def coverage(self, targets: Sequence[Target], classes: Sequence[str]) -> Coverage:
        """Return which classes have no positive or no negative case."""
        return coverage_of_labels(targets, classes)

    def bag_scores(self, logits: Tensor) -> Tensor:
        """Return the probability of each class, independent of the others, shape ``(B, K)``."""
        return logits.sigmoid()

    def truth_names(self) -> list[str]:
        """Return one column per class for the labels."""
        return [f"label_{name}" for name in self.classes]

    def truth(self, prediction: Prediction) -> list[Any]:
        """Return the labels, 1 or 0; empty if they are unknown."""
        labels = prediction.label if isinstance(prediction.label, tuple) else [-1] * self.num_outputs
        return ["" if label < 0 else label for label in labels]
