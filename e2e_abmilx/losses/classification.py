"""Losses of classification: cross-entropy with class weights, and several labels per bag."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WeightedCrossEntropy(nn.CrossEntropyLoss):
    """Cross-entropy with class weights given as plain numbers, as a config has them.

    Args:
        weights: Weight of each class, in the order of the classes.
        label_smoothing: Fraction of the target that is spread over all classes, in [0, 1].
    """

    def __init__(self, weights: list[float], *, label_smoothing: float = 0.0) -> None:
        super().__init__(torch.tensor(weights), label_smoothing=label_smoothing)


def masked_bce(logits: Tensor, label: Tensor, *, positive_weight: Tensor | None = None) -> Tensor:
    r"""Return the binary cross-entropy of several labels per bag, some of which may be unknown.

    With :math:`p = \sigma(\text{logit})`, a label 1 costs :math:`-w \log p`, a label 0 costs :math:`-\log(1 - p)`, and
    an unknown label costs nothing.

    Args:
        logits: Shape ``(B, K)``; computed in at least float32.
        label: 1 for a bag of the class, 0 for a bag of another class, -1 for unknown, shape ``(B, K)``.
        positive_weight: w of each class, shape ``(K,)``; 1 by default.

    Returns:
        Mean over all labels of the batch, a scalar. A mean over the known labels alone would weight a label more, the
        fewer labels of its batch are known, and several processes would compute another loss than one process.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    known = (label >= 0).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), weight=known, pos_weight=positive_weight)


class MaskedBCE(nn.Module):
    """:func:`masked_bce` as a module.

    Args:
        positive_weight: Weight of positive labels relative to negative ones, per class, such as the number of negative
            cases divided by the number of positive cases; 1 by default.
    """

    positive_weight: Tensor | None

    def __init__(self, positive_weight: list[float] | None = None) -> None:
        super().__init__()
        weight = None if positive_weight is None else torch.tensor(positive_weight)
        self.register_buffer("positive_weight", weight)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean loss of a batch: ``(B, K)``, ``(B, K)`` → scalar."""
        return masked_bce(logits, label, positive_weight=self.positive_weight)
