"""Encoders that do not learn: a frozen one, and features that were computed beforehand."""

from typing import Self

import torch
from torch import Tensor, nn

from e2e_abmilx.encoders.timm_encoders import IMAGENET_MEAN, IMAGENET_STD


class FrozenEncoder(nn.Module):
    """An encoder that is used as it is: no gradients, no dropout, BatchNorm by its running statistics.

    Attributes:
        num_features: D of the encoder.
        mean: Channel means of the encoder's input.
        std: Channel standard deviations, likewise.

    Args:
        encoder: The encoder.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.num_features = encoder.num_features
        self.mean = getattr(encoder, "mean", IMAGENET_MEAN)
        self.std = getattr(encoder, "std", IMAGENET_STD)
        self.train()

    def forward(self, patches: Tensor) -> Tensor:
        """Encode patches: ``(M, 3, S, S)`` → ``(M, D)``, without a graph."""
        with torch.no_grad():
            features: Tensor = self.encoder(patches)
        return features

    def train(self, mode: bool = True) -> Self:
        """As every module's, but the encoder stays in evaluation."""
        super().train(mode)
        self.encoder.eval()
        return self


class Precomputed(nn.Module):
    """The encoder of two-stage training: bags hold features already, and pass through.

    Attributes:
        num_features: D.

    Args:
        num_features: D of the features on disk, such as 1024 for UNI.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, shape ``(M, D)``, as they are."""
        return features
