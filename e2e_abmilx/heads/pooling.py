"""Pooling without attention: the baselines for every attention."""

import torch
from torch import Tensor, nn

from e2e_abmilx.heads.base import BagHead, HeadOutput, attention_pool, softmax_over_patches
from e2e_abmilx.heads.contributions import PoolingHead


class _MeanHead(PoolingHead):
    """Base class of heads that classify the plain mean of the patch features."""

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding; see :meth:`BagHead.attend`."""
        features = self.blank_padding(features, mask)
        equal = features.new_zeros(features.shape[0], 1, features.shape[1])
        attention = softmax_over_patches(equal, mask)
        embedding = self._embed_bag(attention_pool(attention, features))
        return HeadOutput(self.classifier(embedding), attention, embedding)

    def values(self, features: Tensor) -> Tensor:
        """Return the features themselves, shape ``(B, N, 1, D)``."""
        return features.unsqueeze(2)


class MeanPool(_MeanHead):
    """Mean of the patch features, then a linear classifier.

    Its attention is the same for all real patches (H = 1). The arguments are those of :class:`BagHead`.
    """

    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__(in_features, num_outputs)
        self.classifier = nn.Linear(in_features, num_outputs)


class MeanMLP(_MeanHead):
    """Mean of the patch features, then a perceptron with one hidden layer.

    The baseline of arXiv:2502.20823 ("SiMLP"), which was better than the attention heads of its time on features of
    foundation models. Its attention is the same for all real patches (H = 1).

    Args:
        hidden_features: C, units of the hidden layer; 512, the width that the other heads project to.
        dropout: Dropout probability after the hidden layer; 0.25 as in the other heads.
    """

    def __init__(
        self, in_features: int, num_outputs: int, *, hidden_features: int = 512, dropout: float = 0.25
    ) -> None:
        super().__init__(in_features, num_outputs)
        self.hidden = nn.Sequential(nn.Linear(in_features, hidden_features), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = nn.Linear(hidden_features, num_outputs)

    def _embed_bag(self, pooled: Tensor) -> Tensor:
        embedding: Tensor = self.hidden(pooled)
        return embedding


class MaxPool(BagHead):
    """Largest value of each feature over the patches, then a linear classifier.

    Its attention is the fraction of the D features whose maximum a patch holds (H = 1); it has no gradient. The
    arguments are those of :class:`BagHead`.
    """

    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__(in_features, num_outputs)
        self.classifier = nn.Linear(in_features, num_outputs)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding; see :meth:`BagHead.attend`."""
        features = self.blank_padding(features, mask)
        if mask is not None:
            features = features.masked_fill(~mask.unsqueeze(-1), float("-inf"))
        embedding, winners = features.max(dim=1)
        dtype = torch.promote_types(features.dtype, torch.float32)
        fraction = torch.full_like(embedding, 1 / self.in_features, dtype=dtype)
        attention = features.new_zeros(features.shape[:2], dtype=dtype).scatter_add(1, winners, fraction)
        return HeadOutput(self.classifier(embedding), attention.unsqueeze(1), embedding)
