"""Survival with proportional hazards."""

import hashlib

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.errors import InputError
from e2e_abmilx.losses import CoxLoss
from e2e_abmilx.tasks.survival import SurvivalTask


class CoxTask(SurvivalTask):
    """Survival by the Cox partial likelihood of one log hazard ratio per case, with Harrell's C-index.

    The model needs one output (``num_outputs: 1``), and the data one time bin (``time_bins: 1``). The arguments are those
    of :class:`BagTask`.
    """

    loss_of_a_bag = False  # a partial likelihood compares cases

    def prepare_evaluation(self) -> None:
        """Create the state of evaluation; refuse, by an InputError, more than one output."""
        if self.num_outputs != 1:
            raise InputError(
                f"a Cox model has one output, the log hazard ratio, and not {self.num_outputs}; set model.num_outputs to 1,"
                " or use SurvivalTask for discrete time"
            )
        super().prepare_evaluation()

    def setup(self, stage: str) -> None:
        """Set up as other tasks; refuse training data with time bins, which a Cox model does not have."""
        data = getattr(self.trainer, "datamodule", None)
        bins = getattr(getattr(data, "plan", data), "time_bins", 1)
        if stage == "fit" and bins != 1:
            raise InputError(f"a Cox model has no time bins, and the data have {bins}; set data.time_bins to 1")
        super().setup(stage)

    def configure_loss(self) -> nn.Module:
        """Return the partial likelihood, with a memory of recent risks."""
        return CoxLoss()

    def bag_loss(self, logits: Tensor, bag: Bag) -> Tensor:
        """Return the loss of a batch."""
        columns = [logits[:, 0], bag.time, bag.event]
        if isinstance(self.loss, CoxLoss):
            cases = torch.tensor([_number_of(name) for name in bag.cases])
            columns.append(cases.to(logits.device, non_blocking=True))
        loss: Tensor = self.loss(*columns)
        return loss

    def bag_scores(self, logits: Tensor) -> Tensor:
        """Return the log hazard ratio, shape ``(B, 1)``."""
        return logits

    def update_metrics(self, metrics: MetricCollection, logits: Tensor, bag: Bag) -> None:
        """Add a batch to the metrics."""
        metrics.update(logits[:, 0], bag.time, bag.event)


def _number_of(case: str) -> int:
    """Return a number from 0 to 2⁶² - 1 that identifies a case in all processes and runs."""
    digest = hashlib.blake2b(case.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2
