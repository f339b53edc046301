"""The interface of all heads, and the attention and pooling functions that they share.

Letters: B bags, N patches in a bag, D encoder features, C hidden features, H attention heads, K outputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from e2e_abmilx.errors import InputError

#: The task's loss, a scalar, as a function of logits of shape ``(B, K)``.
BagLoss = Callable[[Tensor], Tensor]


class HeadOutput(NamedTuple):
    """The output of a head for a batch of bags.

    Attributes:
        logits: Shape ``(B, K)``.
        attention: Weight of every patch, shape ``(B, H, N)``, in at least float32; sums to 1 over the real patches of
            a bag and is 0 on its padding. Heads without attention report the weights that their pooling amounts to.
        embedding: Input of the classifier, shape ``(B, C)``.
    """

    logits: Tensor
    attention: Tensor
    embedding: Tensor


class AuxiliaryOutput(HeadOutput):
    """The output of a head whose training loss needs more than logits; it unpacks into the same three tensors.

    Attributes:
        auxiliary: Further input of the head's :meth:`BagHead.training_loss`, in a shape that the head defines.
    """

    auxiliary: Tensor

    def __new__(cls, logits: Tensor, attention: Tensor, embedding: Tensor, auxiliary: Tensor) -> Self:
        """Make an output of three tensors with a fourth as an attribute."""
        output = super().__new__(cls, logits, attention, embedding)
        output.auxiliary = auxiliary
        return output


class BagHead(nn.Module, ABC):
    """Base class of all heads.

    A head takes these two arguments first; its own docstring lists its other arguments only. It implements
    :meth:`attend`, whose first line should be ``features = self.blank_padding(features, mask)``.

    Args:
        in_features: D, features per patch.
        num_outputs: K, classes or survival bins.
    """

    #: Whether to look for empty bags even if that means waiting for a GPU.
    looks_for_empty_bags: bool = True

    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.num_outputs = num_outputs

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return only the logits of :meth:`attend`, shape ``(B, K)``, so that a head is a drop-in ``nn.Module``."""
        return self.attend(features, mask).logits

    @abstractmethod
    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding.

        Args:
            features: Patch features, shape ``(B, N, D)``.
            mask: True on real patches, shape ``(B, N)``; None if no bag is padded. Padding may have any values,
                but every bag needs at least one real patch.
        """

    def watched(self) -> dict[str, Tensor]:
        """Return numbers of the head that are logged after each training epoch, by name; by default none."""
        return {}

    def training_loss(self, output: HeadOutput, bag_loss: BagLoss, label: Tensor | None = None) -> Tensor:
        """Return the loss that training minimises, a scalar: the bag loss, to which some heads add their own losses.

        Args:
            output: Result of :meth:`attend`.
            bag_loss: The task's loss, a scalar, as a function of logits of shape ``(B, K)``.
            label: Class of every bag, shape ``(B,)``; None for bags without classes, as in survival.
        """
        return bag_loss(output.logits)

    def contributions(self, features: Tensor) -> Tensor:
        """Return how much each patch adds to each logit, shape ``(B, N, K)``; defined for a ``PoolingHead`` only.

        Args:
            features: Patch features of bags without padding, shape ``(B, N, D)``.

        Raises:
            ContributionError: The head does not classify a mean of its patches.
        """
        raise ContributionError(self)

    def blank_padding(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Check a batch as :meth:`check_batch` does, and return it with zeros in place of padding."""
        self.check_batch(features, mask)
        return features if mask is None else features.masked_fill(~mask.unsqueeze(-1), 0)

    def check_batch(self, features: Tensor, mask: Tensor | None) -> None:
        """Refuse a batch, with the arguments of :meth:`attend`, that this head cannot process.

        Looking for empty bags in a mask on a GPU synchronises with the GPU. The head of a task omits that, because
        the loaders never make empty bags; so does a captured graph (``torch.compile``, ``torch.export``).

        Raises:
            ValueError: The shapes are not those of a batch of bags, the mask is not boolean, or a bag is empty.
        """
        shape = tuple(features.shape)
        if len(shape) == 2:
            raise ValueError(f"features must have shape (B, N, D), not {shape}: pass one bag as features.unsqueeze(0)")
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
    """Contributions were asked of a head that does not classify a mean of its patches."""

    def __init__(self, head: BagHead) -> None:
        super().__init__(
            f"{type(head).__name__} does not classify a mean of its patches, so no patch can be left out of it;"
            " take ABMIL, GatedABMIL, ABMILX, CLAM, MultiBranchCLAM, MeanPool, MeanMLP or a PoolingHead of your own,"
            " or look at the attention instead"
        )


class SequenceHead(BagHead):
    """Base class of heads that treat a bag as a sequence, so that the number and order of its patches matter.

    No mask can undo the effects of padding inside such a head. Padded bags are therefore processed one by one, each
    without its padding: exact, but slow. The computation depends on N in ways that a graph cannot express, so such a
    head cannot be exported for bags of any size. It implements :meth:`attend_unpadded` instead of :meth:`attend`.
    """

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding; see :meth:`BagHead.attend`."""
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
        """Return the output for bags without padding, from features of shape ``(B, N, D)``."""

    def _attend_one(self, features: Tensor, real: Tensor) -> HeadOutput:
        """Return the output for one bag of features ``(N, D)``, whose real patches are at positions ``real``."""
        output = self.attend_unpadded(features[real].unsqueeze(0))
        attention = output.attention.new_zeros(*output.attention.shape[:2], len(features))
        return output._replace(attention=attention.index_copy(2, real, output.attention))


def softmax_over_patches(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return the attention of ``scores``, both of shape ``(B, H, N)``; ``mask``, ``(B, N)``, is True on real patches.

    It is in at least float32, because the exponential magnifies rounding errors.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if mask is not None:
        scores = scores.masked_fill(~mask.unsqueeze(1), float("-inf"))
    return scores.softmax(dim=-1)


def attention_pool(attention: Tensor, hidden: Tensor) -> Tensor:
    """Average hidden features ``(B, N, C)`` by attention ``(B, H, N)``; head j averages features j·C/H to (j+1)·C/H.

    A product and a sum instead of a matrix product, because autocast would round attention to half precision, which
    cannot represent weights such as 1/100,000 accurately.

    Returns:
        One embedding per bag, shape ``(B, C)``, in the precision of ``hidden``.
    """
    heads = hidden.reshape(*hidden.shape[:2], attention.shape[1], -1)
    return (attention.transpose(1, 2).unsqueeze(-1) * heads).sum(dim=1).flatten(1).to(hidden.dtype)


def pool_whole(attention: Tensor, hidden: Tensor) -> Tensor:
    """Average hidden features ``(B, N, C)`` by attention ``(B, H, N)``; each head averages all of them.

    Autocast is off, because it would round attention to half precision.

    Returns:
        One embedding per bag and head, shape ``(B, H, C)``, in the precision of ``hidden``.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return (attention @ hidden.to(attention.dtype)).to(hidden.dtype)


def check_heads(hidden_features: int, num_heads: int) -> None:
    """Refuse, by a ValueError, a number of heads that does not divide the hidden features into equal slices."""
    if hidden_features % num_heads:
        divisors = [n for n in range(1, hidden_features + 1) if hidden_features % n == 0]
        raise ValueError(
            f"num_heads must divide hidden_features: {hidden_features} is not a multiple of {num_heads}; "
            f"try {min(divisors, key=lambda n: abs(n - num_heads))}"
        )
