"""Slide-level classification."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassCohenKappa,
    MulticlassF1Score,
)

from e2e_abmilx.data.bag import Bag, Target
from e2e_abmilx.evaluation.estimators import Sensitivity, Specificity
from e2e_abmilx.evaluation.thresholds import Threshold, fit_youden_threshold
from e2e_abmilx.metrics import BalancedAccuracy, ClassAUC
from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.coverage import Coverage, coverage_of_classes


class ClassificationTask(BagTask):
    """Cross-entropy over K classes; AUC (macro, one against the rest), accuracy, F1, κ and calibration error.

    AUC and balanced accuracy are means over the classes that the evaluated cases are of.

    Of two classes the second is the positive one: the probability with the highest Youden index on validation cases is
    kept in the checkpoint, and the test tells sensitivity and specificity there.

    The arguments are those of :class:`BagTask`.
    """

    target = "label"
    monitor = "val/auc"

    def configure_loss(self) -> nn.Module:
        """Return the cross-entropy."""
        return nn.CrossEntropyLoss()

    def configure_metrics(self) -> MetricCollection:
        """Return AUC, accuracy, balanced accuracy, macro F1, κ, quadratic κ and the expected calibration error."""
        classes = self.num_outputs
        return MetricCollection(
            {
                "auc": ClassAUC(),
                "accuracy": MulticlassAccuracy(classes, average="micro"),
                "balanced_accuracy": BalancedAccuracy(classes),
                "f1": MulticlassF1Score(classes, average="macro"),
                "kappa": MulticlassCohenKappa(classes),
                "qwk": MulticlassCohenKappa(classes, weights="quadratic"),
                "ece": MulticlassCalibrationError(classes, n_bins=15),
            },
            compute_groups=False,  # metrics of a group copy all cases so far at each one that is logged
        )

    def coverage(self, targets: Sequence[Target], classes: Sequence[str]) -> Coverage:
        """Say which classes no case is of."""
        return coverage_of_classes(targets, classes)

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

    def fit_threshold(self, score: NDArray[Any], label: NDArray[Any]) -> Threshold | None:
        """Return the probability of the second of two classes with the highest Youden index."""
        if self.num_outputs != 2 or len(np.unique(label)) < 2:
            return None
        return fit_youden_threshold(score, label, split="val")

    def measure_at_threshold(
        self, score: NDArray[Any], label: NDArray[Any], threshold: Threshold
    ) -> dict[str, float]:
        """Return sensitivity and specificity."""
        each_once = np.ones(len(score), np.int64)
        return {
            "sensitivity": Sensitivity(score, label, threshold)(each_once),
            "specificity": Specificity(score, label, threshold)(each_once),
        }

    def update_metrics(self, metrics: MetricCollection, logits: Tensor, bag: Bag) -> None:
        """Add a batch to the metrics."""
        metrics.update(logits.softmax(dim=1), bag.label)
