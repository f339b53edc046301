"""Encoders that are not trained: a frozen network, and features that were computed before."""

from typing import Self

import torch
from torch import Tensor, nn

from e2e_abmilx.encoders.timm_encoders import IMAGENET_MEAN, IMAGENET_STD


class FrozenEncoder(nn.Module):
    """An encoder in permanent evaluation mode: no gradients, no dropout, BatchNorm with running statistics.

    ``num_features``, ``mean`` and ``std`` are those of the encoder.

    Args:
        encoder: The encoder to freeze.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.num_features = encoder.num_features
        self.mean = getattr(encoder, "mean", IMAGENET_MEAN)
        self.std = getattr(encoder, "std", IMAGENET_STD)
        self.train()

    def forward(self, patches: Tensor) -> Tensor:
        """Encode patches without gradients: ``(M, 3, S, S)`` → ``(M, D)``."""
        with torch.no_grad():
            features: Tensor = self.encoder(patches)
        return features

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this module; the encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self


class Precomputed(nn.Module):
    """The encoder of two-stage training: the identity, because bags already hold features.

    Args:
        num_features: D of the features on disk, such as 1024 for UNI.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        """Return the features unchanged, shape ``(M, D)``."""
        return features
