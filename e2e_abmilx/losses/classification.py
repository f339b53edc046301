"""Losses of classification: weighted classes, and several labels per case."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e2e_abmilx.losses.precision import _at_least_float32


class WeightedCrossEntropy(nn.CrossEntropyLoss):
    """Cross-entropy with a weight a class, from numbers as a config has them.

    Args:
        weights: Weight of each class, in the order of the classes.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1].
    """

    def __init__(self, weights: list[float], *, label_smoothing: float = 0.0) -> None:
        super().__init__(torch.tensor(weights), label_smoothing=label_smoothing)


def masked_bce(logits: Tensor, label: Tensor, *, positive_weight: Tensor | None = None) -> Tensor:
    r"""Binary cross-entropy of several labels a bag, of which some are unknown.

    With :math:`p = \sigma(\text{logit})`, a label 1 costs :math:`-w \log p`, a label 0 :math:`-\log(1 - p)`, and an
    unknown one nothing.

    Args:
        logits: Shape ``(B, K)``; computed in float32 at least.
        label: 1 where the bag is of the class, 0 where it is not, -1 where that is unknown, shape ``(B, K)``.
        positive_weight: w of each class, shape ``(K,)``; 1 by default.

    Returns:
        Mean over all labels of the batch, a scalar. Over the known ones alone, a label would weigh the more the less is
        known of the bags that it shares a batch with, and several processes would not learn what one learns.
    """
    logits = _at_least_float32(logits)
    known = (label >= 0).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(
        logits, label.to(logits.dtype), weight=known, pos_weight=positive_weight
    )


class MaskedBCE(nn.Module):
    """:func:`masked_bce` as a module.

    Args:
        positive_weight: How much more than a negative label a positive one weighs, for each class in its order, such
            as the negative cases over the positive ones; 1 by default.
    """

    positive_weight: Tensor | None

    def __init__(self, positive_weight: list[float] | None = None) -> None:
        super().__init__()
        self.register_buffer(
            "positive_weight", None if positive_weight is None else torch.tensor(positive_weight)
        )

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean loss of a batch: ``(B, K)``, ``(B, K)`` → scalar."""
        return masked_bce(logits, label, positive_weight=self.positive_weight)
