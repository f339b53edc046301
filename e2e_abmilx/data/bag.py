"""A bag: the patches or features of a case with its target; bags are collated into a batch.

Letters in all tensor docstrings of the package: B bags, N patches per bag, M patches of any number of bags, S patch
side, D encoder features, C hidden features, H heads, K outputs.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.ahead import ReadAhead
from e2e_abmilx.data.jpegs import Jpegs, join_jpegs
from e2e_abmilx.errors import InputError


class BagError(InputError):
    """A bag cannot be made."""


class Target(NamedTuple):
    """The target of a case.

    Attributes:
        label: Class, time bin of a survival model, or per class 1 or 0 (multi-label), -1 where unknown; of a regression
            the value, a float, NaN where unknown.
        time: Months until the event or censoring; NaN where unknown.
        event: 1 if the event happened, 0 if the case was censored.
    """

    label: int | float | tuple[int, ...] = -1
    time: float = math.nan
    event: int = 0


class Bag(NamedTuple):
    """A batch of bags, padded to the longest bag; before :func:`collate`, a single bag without the dimension B.

    Attributes:
        patches: uint8 pixels, shape ``(B, N, 3, S, S)``; float features, shape ``(B, N, D)``; or, before the transfer to
            the device, JPEG streams of the real patches.
        mask: True for real patches, False for padding, shape ``(B, N)``.
        scale: Index of the scale of each patch in its store, shape ``(B, N)``.
        coords: Level-0 ``(x, y)`` of each patch, shape ``(B, N, 2)``.
        label: Class or time bin, shape ``(B,)``, or per class 1 or 0 (multi-label), shape ``(B, K)``, -1 where unknown;
            of a regression the value, float32, shape ``(B,)``, NaN where unknown.
        time: Months, shape ``(B,)``.
        event: 1 if the event happened, shape ``(B,)``.
        cases: Name of each case.
        last: False if the case continues in the next batch.
        real: Positions of the real patches in the flattened mask, shape ``(M,)``. Their number is then known without
            synchronising with the device. None before :func:`collate`.
        order: Rank of each patch among those of the case, slide by slide, scale by scale and row by row, shape ``(B, N)``;
            None if the parts of a case come in that order anyway.
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
    order: Tensor | None = None

    @property
    def head_mask(self) -> Tensor | None:
        """The mask for a head, shape ``(B, N)``; None if the batch is known to have no padding, which heads can skip."""
        return None if self.real is not None and self.real.numel() == self.mask.numel() else self.mask

    def positions(self) -> Tensor:
        """Return the positions of the real patches in the flattened mask, shape ``(M,)``."""
        return self.mask.flatten().nonzero().squeeze(1) if self.real is None else self.real


class Part(NamedTuple):
    """A part of a slide, which is one item in evaluation.

    Attributes:
        case: Position of the case.
        slide: Name of the slide.
        scale: Index of the scale.
        start: First patch.
        stop: One past the last patch.
        last: Whether this is the last part of the case.
        before: Number of patches of the case in earlier slides and scales.
    """

    case: int
    slide: str
    scale: int
    start: int
    stop: int
    last: bool
    before: int = 0


class BagSource(Dataset[Bag]):
    """A dataset of bags that knows the size of its largest bag.

    Attributes:
        size_settings: Settings that reduce the size of a batch, for error messages.
        follows_model: Whether the bags of an epoch depend on the model; workers then start anew with each epoch.
        reads_objects: Whether bags are read from object storage: the next ones are then read ahead, and workers are not
            forked, because network clients do not survive it.
    """

    size_settings: str = ""
    follows_model: bool = False
    reads_objects: bool = False

    def __getitems__(self, batch: Sequence[Any]) -> list[Bag]:
        """Return the items of a batch, as a ``DataLoader`` asks for them."""
        if not self.reads_objects:
            return [self[index] for index in batch]
        ahead = _AHEAD.get(self)
        if ahead is None:
            ahead = _AHEAD[self] = ReadAhead(self.__getitem__)
        return ahead.take(batch)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the pixels or features of the largest bag; 0 if unknown."""
        return 0


#: What each source of this process reads ahead.
_AHEAD: WeakKeyDictionary[BagSource, ReadAhead[Bag]] = WeakKeyDictionary()


def collate(bags: Sequence[Bag]) -> Bag:
    """Pad bags to the longest bag and stack them.

    Raises:
        BagError: A bag of a case holds no patch.
    """
    for bag in bags:
        if bag.cases and not bag.mask.any():
            raise BagError(f"the bag of case {bag.cases[0]} holds no patch; leave the case out, or cache it again")
    jpegs = [bag.patches for bag in bags if isinstance(bag.patches, Jpegs)]
    pixels = [bag.patches for bag in bags if isinstance(bag.patches, Tensor)]
    mask = _stack([bag.mask for bag in bags])
    return Bag(
        patches=join_jpegs(jpegs) if jpegs else _channels_first(_stack(pixels)),
        mask=mask,
        scale=_stack([bag.scale for bag in bags]),
        coords=_stack([bag.coords for bag in bags]),
        label=torch.stack([bag.label for bag in bags]),
        time=torch.stack([bag.time for bag in bags]),
        event=torch.stack([bag.event for bag in bags]),
        cases=tuple(name for bag in bags for name in bag.cases),
        last=all(bag.last for bag in bags),
        real=mask.flatten().nonzero().squeeze(1),
        order=_stack(orders)
        if len(orders := [bag.order for bag in bags if bag.order is not None]) == len(bags)
        else None,
    )


def make_bag(case: Case, target: Target, patches: Tensor | Jpegs, scale: Tensor, coords: Tensor, *, last: bool) -> Bag:
    """Make a single bag, without the dimension B and without padding; pixels have shape ``(N, S, S, 3)``."""
    return Bag(
        patches=patches,
        mask=torch.ones(len(scale), dtype=torch.bool),
        scale=scale,
        coords=coords,
        label=torch.tensor(target.label, dtype=torch.float32 if isinstance(target.label, float) else None),
        time=torch.tensor(target.time, dtype=torch.float32),
        event=torch.tensor(target.event),
        cases=(case.id,),
        last=last,
    )


#: A bag of no case, for a process that has fewer parts to evaluate than others.
EMPTY_BAG = make_bag(
    Case("", ()),
    Target(),
    patches=torch.empty(0, 0),
    scale=torch.empty(0, dtype=torch.int64),
    coords=torch.empty(0, 2, dtype=torch.int64),
    last=False,
)._replace(cases=())


def _stack(tensors: list[Tensor]) -> Tensor:
    """Stack tensors, padded with zeros to the longest; a single tensor, as in evaluation, is not copied."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else pad_sequence(tensors, batch_first=True)


def _channels_first(patches: Tensor) -> Tensor:
    """Permute ``(B, N, S, S, 3)`` to ``(B, N, 3, S, S)`` without a copy; the memory format stays channels last."""
    return patches.permute(0, 1, 4, 2, 3) if patches.ndim == 5 else patches
