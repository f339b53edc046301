"""What all heads share: bags of patch features go in, one row of logits a bag comes out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from e2e_abmilx.errors import InputError


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


class AuxiliaryOutput(HeadOutput):
    """The output of a head that learns from more than its logits; it unpacks into the same three.

    Attributes:
        auxiliary: what the head's :meth:`BagHead.training_loss` looks at besides, in a shape of the head's own.
    """

    auxiliary: Tensor

    def __new__(cls, logits: Tensor, attention: Tensor, embedding: Tensor, auxiliary: Tensor) -> Self:
        """Make an output of three tensors that carries a fourth."""
        output = super().__new__(cls, logits, attention, embedding)
        output.auxiliary = auxiliary
        return output


class BagHead(nn.Module, ABC):
    """Base of all heads.

    A head of your own takes the same two first arguments and implements :meth:`attend`, whose first line is
    ``features = self.blank_padding(features, mask)``.

    Args:
        in_features: D, features of a patch.
        num_outputs: K, classes or survival bins.
    """

    #: Whether empty bags are looked for where that means to wait for a GPU.
    looks_for_empty_bags: bool = True

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

    def training_loss(
        self, output: HeadOutput, bag_loss: Callable[[Tensor], Tensor], label: Tensor | None = None
    ) -> Tensor:
        """Return what training minimises: the loss of the bags, to which some heads add losses of their own.

        Args:
            output: what :meth:`attend` returned.
            bag_loss: the task's loss of logits of shape ``(B, K)``, a scalar.
            label: class of every bag, shape ``(B,)``; None where bags have no classes, as in survival.

        Returns:
            A scalar.
        """
        return bag_loss(output.logits)

    def contributions(self, features: Tensor) -> Tensor:
        """Return what each patch adds to each logit; see :class:`~e2e_abmilx.heads.contributions.PoolingHead`.

        Args:
            features: patch features of bags without padding, shape ``(B, N, D)``.

        Returns:
            Shape ``(B, N, K)``.

        Raises:
            ContributionError: if the head does not classify a mean of its patches.
        """
        raise ContributionError(self)

    def blank_padding(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Check a batch and return it with zeros for padding; the caller's tensor stays as it is.

        Args:
            features: patch features, shape ``(B, N, D)``.
            mask: True on real patches, shape ``(B, N)``.

        Returns:
            Features, shape ``(B, N, D)``.
        """
        self.check_batch(features, mask)
        return features if mask is None else features.masked_fill(~mask.unsqueeze(-1), 0)

    def check_batch(self, features: Tensor, mask: Tensor | None) -> None:
        """Check a batch at the door.

        To look for empty bags in a mask that is on a GPU is to wait for the GPU. A head of a task does not look there,
        because bags without a patch never reach it. Nor does a captured graph (``torch.compile``, ``torch.export``).

        Args:
            features: patch features, shape ``(B, N, D)``.
            mask: True on real patches, shape ``(B, N)``.

        Raises:
            ValueError: if the shapes are not those of a batch of bags, the mask is not boolean, or a bag is empty.
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
        if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != shape[:2]):
            raise ValueError(
                f"mask must be bool of shape {shape[:2]}, not {mask.dtype} of shape {tuple(mask.shape)}: "
                "pass True for every real patch and False for padding"
            )
        looks = self.looks_for_empty_bags or mask is None or not mask.is_cuda
        if looks and not torch.compiler.is_compiling():
            _refuse_empty_bags(shape, mask)


def _refuse_empty_bags(shape: tuple[int, ...], mask: Tensor | None) -> None:
    """Refuse bags without a patch, whose attention would be 0/0."""
    empty = range(shape[0]) if shape[1] == 0 else []
    if mask is not None and shape[1]:
        empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
    if len(empty):
        raise ValueError(
            f"{len(empty)} of {shape[0]} bags hold no real patch, first bag {empty[0]}: leave empty bags out of the batch"
        )


class ContributionError(InputError):
    """A head that a patch cannot be left out of.

    Args:
        head: the head.
    """

    def __init__(self, head: BagHead) -> None:
        super().__init__(
            f"{type(head).__name__} does not classify a mean of its patches, so that none can be left out of it;"
            " take ABMIL, GatedABMIL, ABMILX, CLAM, MultiBranchCLAM, MeanPool, MeanMLP or a PoolingHead of your own,"
            " or look at the attention instead"
        )


class SequenceHead(BagHead):
    """Base of heads for which a bag is a sequence, so that the number and the order of its patches matter.

    Padding inside such a head has consequences that no mask takes back. Where bags are padded, they therefore go
    through one by one, each without its padding: exact, and as slow as one bag after the other. What such a head does
    depends on N beyond what a graph can say, so it cannot be exported for bags of any size. It implements
    :meth:`attend_unpadded` in place of :meth:`attend`.
    """

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding as :meth:`BagHead.attend` says."""
        self.check_batch(features, mask)
        if mask is None:
            return self.attend_unpadded(features)
        counts = mask.sum(dim=1).tolist()
        if min(counts, default=0) == mask.shape[1]:
            return self.attend_unpadded(features)
        places = torch.split(mask.nonzero()[:, 1], counts)
        bags = [self._attend_one(bag, real) for bag, real in zip(features, places, strict=True)]
        return HeadOutput(*(torch.cat(column) for column in zip(*bags, strict=True)))

    @abstractmethod
    def attend_unpadded(self, features: Tensor) -> HeadOutput:
        """Return logits, attention and embedding of bags without padding.

        Args:
            features: patch features, shape ``(B, N, D)``.

        Returns:
            What :class:`HeadOutput` says.
        """

    def _attend_one(self, features: Tensor, real: Tensor) -> HeadOutput:
        """One bag of features ``(N, D)``, of which those at the places ``real``, ``(n,)``, count."""
        output = self.attend_unpadded(features[real].unsqueeze(0))
        attention = output.attention.new_zeros(*output.attention.shape[:2], len(features))
        return output._replace(attention=attention.index_copy(2, real, output.attention))


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


def pool_whole(attention: Tensor, hidden: Tensor) -> Tensor:
    """Let every head average all hidden features.

    Outside of autocast, which would round the attention of a large bag to half precision.

    Args:
        attention: shape ``(B, H, N)``.
        hidden: shape ``(B, N, C)``.

    Returns:
        One embedding a bag and head, shape ``(B, H, C)``, in the precision of ``hidden``.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return (attention @ hidden.to(attention.dtype)).to(hidden.dtype)


def check_heads(hidden_features: int, num_heads: int) -> None:
    """Refuse attention heads that cannot have slices of equal width.

    Args:
        hidden_features: C, features to be shared out.
        num_heads: H.

    Raises:
        ValueError: if ``num_heads`` does not divide ``hidden_features``.
    """
    if hidden_features % num_heads:
        divisors = [n for n in range(1, hidden_features + 1) if hidden_features % n == 0]
        raise ValueError(
            f"num_heads must divide hidden_features: {hidden_features} is not a multiple of {num_heads}; "
            f"try {min(divisors, key=lambda n: abs(n - num_heads))}"
        )
