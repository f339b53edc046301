"""Bags: one case's patches or features with its target, and how bags become a batch.

Letters, used in every tensor docstring of the package: B bags, N patches in a bag, M patches of any number of
bags, S patch side, D encoder features, C hidden features, H heads, K outputs.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.jpegs import Jpegs, join_jpegs
from e2e_abmilx.errors import InputError


class BagError(InputError):
    """A bag that cannot be made."""


class Target(NamedTuple):
    """What a case is trained towards.

    Attributes:
        label: Class, or time bin of a survival model, or, of several labels, 1 or 0 for each class; -1 where unknown.
        time: Months until the event or the censoring; NaN where unknown.
        event: 1 where the event happened, 0 where it was censored.
    """

    label: int | tuple[int, ...] = -1
    time: float = math.nan
    event: int = 0


class Bag(NamedTuple):
    """A batch: bags of patches, padded to the longest.

    Attributes:
        patches: uint8 pixels, shape ``(B, N, 3, S, S)``; or float features, shape ``(B, N, D)``; or, on the way to
            the device, the JPEG streams of the real patches.
        mask: True for a real patch, shape ``(B, N)``.
        scale: Which of the store's scales each patch is from, shape ``(B, N)``.
        coords: Level-0 ``(x, y)`` of each patch, shape ``(B, N, 2)``.
        label: Class or time bin, shape ``(B,)``; or, of several labels, 1 or 0 for each class, shape ``(B, K)``; -1
            where unknown.
        time: Months, shape ``(B,)``.
        event: 1 where the event happened, shape ``(B,)``.
        cases: Name of each case.
        last: False for a part of a case whose rest follows in the next batches.
        real: Positions of the real patches among all B · N of the mask, shape ``(M,)``, so that a device need not be
            asked how many there are; None in a bag that was not collated.
    """

    patches: Tensor | Jpegs
    mask: Tensor
    scale: Tensor
    coords: Tensor
    label: Tensor
    time: Tensor
    event: Tensor
    cases: tuple[str, ...]
    last: bool
    real: Tensor | None = None

    @property
    def head_mask(self) -> Tensor | None:
        """The mask, for a head; None where no patch is padding, as far as that is known without asking a device."""
        return None if self.real is not None and self.real.numel() == self.mask.numel() else self.mask

    def positions(self) -> Tensor:
        """Where the real patches are: :attr:`real`, or what the mask says."""
        return self.mask.flatten().nonzero().squeeze(1) if self.real is None else self.real


#: No case at all: what a process gets that has fewer parts to evaluate than the others.
NOTHING = Bag(
    patches=torch.empty(0, 0),
    mask=torch.empty(0, dtype=torch.bool),
    scale=torch.empty(0, dtype=torch.int64),
    coords=torch.empty(0, 2, dtype=torch.int64),
    label=torch.tensor(-1),
    time=torch.tensor(math.nan),
    event=torch.tensor(0),
    cases=(),
    last=False,
)


class Part(NamedTuple):
    """A piece of a slide that is evaluated at once."""

    case: int
    slide: str
    scale: int
    start: int
    stop: int
    last: bool


class BagSource(Dataset[Bag]):
    """A data set of bags that knows how large they are at most.

    Attributes:
        size_settings: Settings of the data module that a batch is smaller by, for an error to name.
    """

    size_settings: str = ""

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest bag's pixels or features; 0 where that is unknown."""
        return 0


def collate(bags: Sequence[Bag]) -> Bag:
    """Pad bags to the longest and stack them; padding is False in the mask.

    Raises:
        BagError: A bag of a case holds no patch.
    """
    for bag in bags:
        if bag.cases and not bag.mask.any():
            raise BagError(
                f"the bag of case {bag.cases[0]} holds no patch; leave the case out, or cache it again"
            )
    longest = max(len(bag.mask) for bag in bags)

    def stack(tensors: Sequence[Tensor]) -> Tensor:
        if len(tensors) == 1:
            return tensors[0].unsqueeze(0)  # a part of a slide need not be copied
        padded = tensors[0].new_zeros(len(tensors), longest, *tensors[0].shape[1:])
        for row, tensor in zip(padded, tensors, strict=True):
            row[: len(tensor)] = tensor
        return padded

    jpegs = [bag.patches for bag in bags if isinstance(bag.patches, Jpegs)]
    pixels = [bag.patches for bag in bags if isinstance(bag.patches, Tensor)]
    mask = stack([bag.mask for bag in bags])
    return Bag(
        patches=join_jpegs(jpegs) if jpegs else _channels_first(stack(pixels)),
        mask=mask,
        scale=stack([bag.scale for bag in bags]),
        coords=stack([bag.coords for bag in bags]),
        label=torch.stack([bag.label for bag in bags]),
        time=torch.stack([bag.time for bag in bags]),
        event=torch.stack([bag.event for bag in bags]),
        cases=tuple(name for bag in bags for name in bag.cases),
        last=all(bag.last for bag in bags),
        real=mask.flatten().nonzero().squeeze(1),
    )


def make_bag(
    case: Case, target: Target, patches: Tensor | Jpegs, scale: Tensor, coords: Tensor, *, last: bool
) -> Bag:
    """A single bag without the dimension B, of real patches only.

    Args:
        case: The case.
        target: Its target.
        patches: Pixels, shape ``(N, S, S, 3)``, features, shape ``(N, D)``, or N JPEG streams.
        scale: Scale of each patch, shape ``(N,)``.
        coords: Level-0 ``(x, y)``, shape ``(N, 2)``.
        last: False for a part whose case goes on.
    """
    return Bag(
        patches=patches,
        mask=torch.ones(len(scale), dtype=torch.bool),
        scale=scale,
        coords=coords,
        label=torch.tensor(target.label),
        time=torch.tensor(target.time, dtype=torch.float32),
        event=torch.tensor(target.event),
        cases=(case.id,),
        last=last,
    )


def _channels_first(patches: Tensor) -> Tensor:
    """(B, N, S, S, 3) → (B, N, 3, S, S) without moving a byte: the memory stays channels last."""
    return patches.permute(0, 1, 4, 2, 3) if patches.ndim == 5 else patches
