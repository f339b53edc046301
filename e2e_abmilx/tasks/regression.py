"""Slide-level regression: a number per case."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MetricCollection
from torchmetrics.functional import pearson_corrcoef, r2_score, spearman_corrcoef

from e2e_abmilx.cohort import value_scale
from e2e_abmilx.data.bag import Bag, Target
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import CLAM
from e2e_abmilx.metrics import MeasureOfValues
from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.coverage import Coverage, coverage_of_values
from e2e_abmilx.tasks.prediction import Prediction


class RegressionTask(BagTask):
    r"""Regression by the mean squared error, with R², Pearson's and Spearman's correlation and mean absolute error.

    The model has one output (``num_outputs: 1``), which predicts the value in standard deviations from the mean. With mean
    :math:`\mu` and standard deviation :math:`\sigma` of the training values y and the loss L,

    .. math:: \hat y = \mu + \sigma \cdot \text{logit}, \qquad \text{minimised: } L\bigl(\text{logit}, (y - \mu) / \sigma\bigr),

    so that neither the unit of the table nor its offset changes training, and the loss of the training mean is 1. Scores
    and metrics are in the unit of the table. :math:`\mu` and :math:`\sigma` are set when a fit starts, and are part of the
    weights. Another loss, robust to outliers, is ``loss: torch.nn.HuberLoss``.

    The checkpoint is chosen by R² and not by a correlation: R² is defined for a model that predicts a constant, and falls
    with a wrong scale or offset, which a correlation does not notice.

    The arguments are those of :class:`BagTask`. CLAM is refused, because its instance loss needs classes.
    """

    target = "regression"
    monitor = "val/r2"
    has_threshold = False

    value_mean: Tensor
    value_std: Tensor

    def prepare_evaluation(self) -> None:
        """Create the state of evaluation; refuse, by an InputError, more than one output and heads that need classes."""
        if self.num_outputs != 1:
            raise InputError(
                f"a regression has one output, the value, and not {self.num_outputs}; set model.num_outputs to 1, or use"
                " ClassificationTask for classes"
            )
        if isinstance(self.head, CLAM):
            raise InputError(
                f"{type(self.head).__name__} labels patches by the class of their bag, and a regression has no classes;"
                " take GatedABMIL, the same attention without the instance loss"
            )
        self.register_buffer("value_mean", torch.zeros(()))
        self.register_buffer("value_std", torch.ones(()))
        super().prepare_evaluation()

    def on_fit_start(self) -> None:
        """Take the scale of the training values, unless the fit is resumed."""
        super().on_fit_start()
        data = getattr(self.trainer, "datamodule", None)
        targets = getattr(data, "targets", {}).get("train", ())
        if self.trainer.ckpt_path is not None:
            return
        if not targets:
            raise InputError(
                "RegressionTask takes mean and std of the training values from a data module; fit with one"
            )
        table = getattr(getattr(data, "plan", None), "labels", "the label table")
        scale = value_scale([target.label for target in targets], table)
        self.value_mean.fill_(scale.mean)
        self.value_std.fill_(scale.std)

    def configure_loss(self) -> nn.Module:
        """Return the mean squared error."""
        return nn.MSELoss()

    def configure_metrics(self) -> MetricCollection:
        """Return R², Pearson's r, Spearman's ρ and the mean absolute error."""
        return MetricCollection(
            {
                "r2": MeasureOfValues(r2_score, constant_scores=True),
                "pearson": MeasureOfValues(pearson_corrcoef),
                "spearman": MeasureOfValues(spearman_corrcoef),
                "mae": MeanAbsoluteError(),
            },
            compute_groups=False,  # metrics in a group copy all cases so far each time that one is logged
        )

    def update_metrics(self, metrics: MetricCollection, logits: Tensor, bag: Bag) -> None:
        """Add a batch to the metrics."""
        metrics.update(self.bag_scores(logits)[:, 0], bag.label)

    def coverage(self, targets: Sequence[Target], classes: Sequence[str]) -> Coverage:
        """Return whether all values are the same."""
        return coverage_of_values(targets)

    def bag_loss(self, logits: Tensor, bag: Bag) -> Tensor:
        """Return the loss of a batch, on standardised values."""
        loss: Tensor = self.loss(logits[:, 0], (bag.label - self.value_mean) / self.value_std)
        return loss

    def bag_scores(self, logits: Tensor) -> Tensor:
        """Return the predicted value in the unit of the table, shape ``(B, 1)``."""
        return self.value_mean + self.value_std * logits

    def score_names(self) -> list[str]:
        """Return the column of the predicted value."""
        return ["predicted_value"]

    def truth_names(self) -> list[str]:
        """Return the column of the true value."""
        return ["value"]

    def truth(self, prediction: Prediction) -> list[Any]:
        """Return the value with the digits of float32; empty if it is unknown."""
        value = prediction.label
        return [f"{value:.7g}" if isinstance(value, float) and not math.isnan(value) else ""]
