"""What all heads share: bags of patch features go in, one row of logits a bag comes out."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


class HeadOutput(NamedTuple):
    """Everything a head knows about a batch of bags.

    Attributes:
        logits: shape ``(B, K)``.
        attention: weight of every patch, shape ``(B, H, N)``; at least float32, sums to 1 over the real patches
            of a bag and is 0 on its padding. Heads without attention report the weights that they amount to.
        embedding: what the classifier sees of a bag, shape ``(B, C)``.
    """

    logits: Tensor
    attention: Tensor
    embedding: Tensor


class BagHead(nn.Module, ABC):
    """Base of all heads.

    A head of your own takes the same two first arguments and implements :meth:`attend`, whose first line is
    ``features = self.blank_padding(features, mask)``.

    Args:
        in_features: D, features of a patch.
        num_outputs: K, classes or survival bins.
    """

    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.num_outputs = num_outputs

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits only, so that a head is a drop-in ``nn.Module``.

        Args:
            features: patch features, shape ``(B, N, D)``.
            mask: True on real patches, shape ``(B, N)``; None when no bag is padded.

        Returns:
            Logits, shape ``(B, K)``.
        """
        return self.attend(features, mask).logits

    @abstractmethod
    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding.

        Args:
            features: patch features, shape ``(B, N, D)``.
            mask: True on real patches, shape ``(B, N)``; None when no bag is padded. Padding may hold anything,
                but every bag needs one real patch.

        Returns:
            What :class:`HeadOutput` says.
        """

    def blank_padding(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Check a batch at the door and return it with zeros for padding; the caller's tensor stays as it is.

        Args:
            features: patch features, shape ``(B, N, D)``.
            mask: True on real patches, shape ``(B, N)``.

        Returns:
            Features, shape ``(B, N, D)``.

        Raises:
            ValueError: if the shapes are not those of a batch of bags, or the mask is not boolean.
        """
        shape = tuple(features.shape)
        if len(shape) == 2:
            raise ValueError(
                f"features must have shape (B, N, D), not {shape}: pass one bag as features.unsqueeze(0)"
            )
        if len(shape) != 3 or shape[2] != self.in_features:
            raise ValueError(
                f"features must have shape (B, N, {self.in_features}), not {shape}: "
                f"build the head with in_features={shape[-1] if shape else 0} or pass the features it was made for"
            )
        if mask is None:
            return features
        if mask.dtype != torch.bool or tuple(mask.shape) != shape[:2]:
            raise ValueError(
                f"mask must be bool of shape {shape[:2]}, not {mask.dtype} of shape {tuple(mask.shape)}: "
                "pass True for every real patch and False for padding"
            )
        return features.masked_fill(~mask.unsqueeze(-1), 0)


def softmax_over_patches(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Turn scores into attention, in at least float32 because the exponential magnifies rounding.

    Args:
        scores: shape ``(B, H, N)``.
        mask: True on real patches, shape ``(B, N)``.

    Returns:
        Attention, shape ``(B, H, N)``.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if mask is not None:
        scores = scores.masked_fill(~mask.unsqueeze(1), float("-inf"))
    return scores.softmax(dim=-1)


def attention_pool(attention: Tensor, hidden: Tensor) -> Tensor:
    """Let every head average its own slice of the hidden features.

    A product and a sum instead of a matrix product: autocast would round the attention of a large bag to half
    precision, where 1/100,000 is barely a number.

    Args:
        attention: shape ``(B, H, N)``.
        hidden: shape ``(B, N, C)``; head j owns features ``j·C/H`` to ``(j+1)·C/H``.

    Returns:
        One embedding a bag, shape ``(B, C)``, in the precision of ``hidden``.
    """
    heads = hidden.reshape(*hidden.shape[:2], attention.shape[1], -1)
    return (attention.transpose(1, 2).unsqueeze(-1) * heads).sum(dim=1).flatten(1).to(hidden.dtype)
