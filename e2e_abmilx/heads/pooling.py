"""Pooling without attention: the controls that every attention should beat."""

import torch
from torch import Tensor, nn

from e2e_abmilx.heads.base import BagHead, HeadOutput, attention_pool, softmax_over_patches
from e2e_abmilx.heads.contributions import PoolingHead


class MeanPool(PoolingHead):
    """Mean of the patch features, then a linear classifier.

    Its attention is the same for all real patches (H = 1).

    Args:
        in_features: D, features of a patch.
        num_outputs: K, classes or survival bins.
    """

    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__(in_features, num_outputs)
        self.classifier = nn.Linear(in_features, num_outputs)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding as :meth:`BagHead.attend` says."""
        attention, embedding = _mean(self.blank_padding(features, mask), mask)
        return HeadOutput(self.classifier(embedding), attention, embedding)

    def values(self, features: Tensor) -> Tensor:
        """Return the features themselves, shape ``(B, N, 1, D)``."""
        return features.unsqueeze(2)

    def classify(self, pooled: Tensor) -> Tensor:
        """Return logits from the mean, shape ``(B, 1, D)``."""
        logits: Tensor = self.classifier(pooled.flatten(1))
        return logits


class MeanMLP(PoolingHead):
    """Mean of the patch features, then a perceptron with one hidden layer.

    The baseline of arXiv:2502.20823 ("SiMLP"), which beat the attention of its time on features of foundation models.
    Its attention is the same for all real patches (H = 1).

    Args:
        in_features: D, features of a patch.
        num_outputs: K, classes or survival bins.
        hidden_features: C, units of the hidden layer; 512, the width that the other heads project to.
        dropout: probability after the hidden layer; 0.25 as in the other heads.
    """

    def __init__(
        self, in_features: int, num_outputs: int, *, hidden_features: int = 512, dropout: float = 0.25
    ) -> None:
        super().__init__(in_features, num_outputs)
        self.hidden = nn.Sequential(nn.Linear(in_features, hidden_features), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = nn.Linear(hidden_features, num_outputs)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding as :meth:`BagHead.attend` says."""
        attention, mean = _mean(self.blank_padding(features, mask), mask)
        embedding = self.hidden(mean)
        return HeadOutput(self.classifier(embedding), attention, embedding)

    def values(self, features: Tensor) -> Tensor:
        """Return the features themselves, shape ``(B, N, 1, D)``."""
        return features.unsqueeze(2)

    def classify(self, pooled: Tensor) -> Tensor:
        """Return logits from the mean, shape ``(B, 1, D)``."""
        logits: Tensor = self.classifier(self.hidden(pooled.flatten(1)))
        return logits


class MaxPool(BagHead):
    """Largest value of every feature over the patches, then a linear classifier.

    Its attention is the share of the D features that a patch won (H = 1); it carries no gradient.

    Args:
        in_features: D, features of a patch.
        num_outputs: K, classes or survival bins.
    """

    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__(in_features, num_outputs)
        self.classifier = nn.Linear(in_features, num_outputs)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding as :meth:`BagHead.attend` says."""
        features = self.blank_padding(features, mask)
        if mask is not None:
            features = features.masked_fill(~mask.unsqueeze(-1), float("-inf"))
        embedding, winners = features.max(dim=1)
        dtype = torch.promote_types(features.dtype, torch.float32)
        won = torch.full_like(embedding, 1 / self.in_features, dtype=dtype)
        attention = features.new_zeros(features.shape[:2], dtype=dtype).scatter_add(1, winners, won)
        return HeadOutput(self.classifier(embedding), attention.unsqueeze(1), embedding)


def _mean(features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Equal weights of the real patches, shape ``(B, 1, N)``, and the mean that they make, shape ``(B, D)``."""
    indifferent = features.new_zeros(features.shape[0], 1, features.shape[1])
    attention = softmax_over_patches(indifferent, mask)
    return attention, attention_pool(attention, features)
