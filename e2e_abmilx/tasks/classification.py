"""Slide-level classification: one class per case."""

from collections.abc import Callable, Sequence
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
from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.estimators import Sensitivity, Specificity
from e2e_abmilx.evaluation.thresholds import (
    Threshold,
    check_sensitivity,
    fit_sensitivity_threshold,
    fit_youden_threshold,
)
from e2e_abmilx.heads.base import BagHead
from e2e_abmilx.metrics import BalancedAccuracy, ClassAUC
from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.coverage import Coverage, coverage_of_classes


class ClassificationTask(BagTask):
    """Classification by cross-entropy, with AUC (macro, one against the rest), accuracy, F1, κ and calibration error.

    AUC and balanced accuracy are means over the classes that occur among the evaluated cases.

    Of two classes the second is the positive one. A threshold of its probability is fitted on validation cases: the one
    with the highest Youden index, or the highest one with a stated sensitivity. It is saved in the checkpoint, and the
    test reports sensitivity and specificity at it.

    Args:
        encoder: As in :class:`BagTask`.
        head: As in :class:`BagTask`.
        num_outputs: K, the number of classes.
        sensitivity: Sensitivity, in (0, 1], that the threshold must have on the validation cases; needs two classes.
        **how: The other arguments of :class:`BagTask`.
    """

    target = "label"
    monitor = "val/auc"

    def __init__(
        self,
        encoder: nn.Module,
        head: Callable[[int, int], BagHead],
        num_outputs: int,
        *,
        sensitivity: float | None = None,
        **how: Any,  # noqa: ANN401
    ) -> None:
        if sensitivity is not None:
            check_sensitivity(sensitivity)
            if num_outputs != 2:
                raise InputError(
                    f"sensitivity is {sensitivity}, but there are {num_outputs} classes, and only one of two classes is the"
                    " positive one; leave sensitivity out, or set num_outputs to 2"
                )
        super().__init__(encoder, head, num_outputs, **how)
        self.sensitivity = sensitivity

    def configure_loss(self) -> nn.Module:
        """Return the cross-entropy."""
        return nn.CrossEntropyLoss()

    def configure_metrics(self) -> MetricCollection:
        """Return AUC, accuracy, balanced accuracy, macro F1, κ, QWK and the expected calibration error."""
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
            compute_groups=False,  # metrics in a group copy all cases so far each time that one is logged
        )

    def coverage(self, targets: Sequence[Target], classes: Sequence[str]) -> Coverage:
        """Return which classes have no case."""
        return coverage_of_classes(targets, classes)

    def bag_classes(self, bag: Bag) -> Tensor:
        """Return the labels, shape ``(B,)``."""
        return bag.label

    def bag_scores(self, logits: Tensor) -> Tensor:
        """Return the class probabilities, shape ``(B, K)``."""
        return logits.softmax(dim=1)

    def fit_threshold(self, score: NDArray[Any], label: NDArray[Any]) -> Threshold | None:
        """Return the threshold of the second of two classes; None for other numbers of classes among outputs or cases."""
        if self.num_outputs != 2 or len(np.unique(label)) < 2:
            return None
        if self.sensitivity is not None:
            return fit_sensitivity_threshold(score, label, self.sensitivity, split="val")
        return fit_youden_threshold(score, label, split="val")

    def measure_at_threshold(self, score: NDArray[Any], label: NDArray[Any], threshold: Threshold) -> dict[str, float]:
        """Return sensitivity and specificity."""
        each_once = np.ones(len(score), np.int64)
        return {
            "sensitivity": Sensitivity(score, label, threshold)(each_once),
            "specificity": Specificity(score, label, threshold)(each_once),
        }
