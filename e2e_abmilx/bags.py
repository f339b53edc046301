"""Bags of patches: random multi-scale draws for training, whole slides in chunks for evaluation.

Letters, used in every tensor docstring of the package: B bags, N patches in a bag, M patches of any number of
bags, S patch side, D encoder features, C hidden features, H heads, K outputs.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from e2e_abmilx.cohort import Case
from e2e_abmilx.errors import InputError
from e2e_abmilx.jpegs import Jpegs, join_jpegs
from e2e_abmilx.samplers import Draw
from e2e_abmilx.store import PatchStore


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
    def padding(self) -> Tensor | None:
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


class RandomBags(BagSource):
    """Random multi-scale bags, Eq. 2 of arXiv:2506.02408.

    Of ``patches_per_bag`` = s, ⌊s · coarse_share⌋ are drawn from the coarser scales and the rest from the finest,
    uniformly and without replacement over all slides of a case.

    Args:
        cases: The cases.
        targets: Their targets, in the same order.
        cache: Folder of the patch stores.
        patches_per_bag: s.
        coarse_share: Share of coarse patches, the paper's 1/r.
        seed: Of every draw.
        short_bags: What becomes of a case with fewer patches: ``"mask"`` gives what it has, and padding is neither
            encoded nor attended; ``"duplicate"`` repeats random ones up to s, as the authors do.
        encoded: Leave patches JPEG-coded, for a device that decodes them.
    """

    size_settings = "data.batch_size or data.patches_per_bag"

    def __init__(
        self,
        cases: Sequence[Case],
        targets: Sequence[Target],
        cache: Path,
        *,
        patches_per_bag: int,
        coarse_share: float,
        seed: int,
        short_bags: Literal["mask", "duplicate"] = "mask",
        encoded: bool = False,
    ) -> None:
        self.cases = cases
        self.targets = targets
        self.cache = cache
        self.patches_per_bag = patches_per_bag
        self.coarse_share = coarse_share
        self.seed = seed
        self.short_bags = short_bags
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, draw: Draw | int) -> Bag:
        """Return a single bag without the dimension B; of a mere number, the draw of the first epoch."""
        draw = draw if isinstance(draw, Draw) else Draw(0, draw)
        case, target = self.cases[draw.case], self.targets[draw.case]
        name = zlib.crc32(case.id.encode())
        rng = np.random.default_rng([self.seed, draw.epoch, name, draw.repeat])
        stores = [PatchStore(self.cache / f"{slide}.zarr") for slide in case.slides]
        pieces = []
        for scale, wanted in enumerate(self._counts(len(stores[0].scales))):
            sizes = [store.num_patches(scale) for store in stores]
            chosen = self._choose(rng, sum(sizes), wanted)
            first = 0
            for store, size in zip(stores, sizes, strict=True):
                own = np.sort(chosen[(chosen >= first) & (chosen < first + size)]) - first
                first += size
                if len(own):
                    pieces.append(_read(store, own, scale, self.encoded))
        return _patch_bag(case, target, pieces, last=True)

    @property
    def largest_bytes(self) -> int:
        """Bytes of a bag's pixels."""
        return self.patches_per_bag * _patch_bytes(self.cases, self.cache)

    def _choose(self, rng: np.random.Generator, available: int, wanted: int) -> np.ndarray:
        chosen: np.ndarray = rng.permutation(available)[:wanted]
        if self.short_bags == "duplicate" and 0 < available < wanted:
            return np.concatenate([chosen, rng.integers(available, size=wanted - available)])
        return chosen

    def _counts(self, scales: int) -> list[int]:
        """Patches of each scale, finest first."""
        coarse = int(self.patches_per_bag * self.coarse_share) if scales > 1 else 0
        each = [coarse // (scales - 1) + (k < coarse % (scales - 1)) for k in range(scales - 1)]
        return [self.patches_per_bag - coarse, *each]


class WholeSlides(BagSource):
    """Every patch of every slide, in parts of bounded size, case after case.

    Args:
        cases: The cases.
        targets: Their targets, in the same order.
        cache: Folder of the patch stores.
        chunk_size: Patches in a part, at most.
        scales: ``"finest"``, as in the paper, or ``"all"``.
        encoded: Leave patches JPEG-coded, for a device that decodes them.
    """

    size_settings = "data.chunk_size"

    def __init__(
        self,
        cases: Sequence[Case],
        targets: Sequence[Target],
        cache: Path,
        *,
        chunk_size: int,
        scales: Literal["finest", "all"] = "finest",
        encoded: bool = False,
    ) -> None:
        self.cases = cases
        self.targets = targets
        self.cache = cache
        self.chunk_size = chunk_size
        self.scales = scales
        self.encoded = encoded
        self.parts = [part for index in range(len(cases)) for part in self._split(index)]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Bag:
        """Return a part of a bag without the dimension B."""
        part = self.parts[index]
        store = PatchStore(self.cache / f"{part.slide}.zarr")
        piece = _read(store, np.arange(part.start, part.stop), part.scale, self.encoded)
        return _patch_bag(self.cases[part.case], self.targets[part.case], [piece], last=part.last)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest part's pixels."""
        most = max((part.stop - part.start for part in self.parts), default=0)
        return most * _patch_bytes(self.cases, self.cache)

    def _split(self, case: int) -> list[Part]:
        parts = [part for slide in self.cases[case].slides for part in self._split_slide(case, slide)]
        parts[-1] = parts[-1]._replace(last=True)
        return parts

    def _split_slide(self, case: int, slide: str) -> Iterator[Part]:
        store = PatchStore(self.cache / f"{slide}.zarr")
        for scale in range(len(store.scales) if self.scales == "all" else 1):
            count = store.num_patches(scale)
            for start in range(0, count, self.chunk_size):
                yield Part(case, slide, scale, start, min(start + self.chunk_size, count), last=False)


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


def check_stores(cases: Sequence[Case], cache: Path) -> None:
    """Refuse stores that cannot make bags together.

    Raises:
        BagError: A store has no patch, or stores differ in scales or patch size.
    """
    first: PatchStore | None = None
    for case in cases:
        for slide in case.slides:
            store = PatchStore(cache / f"{slide}.zarr")
            first = first or store
            if not store.num_patches(0):
                raise BagError(
                    f"{store.path} holds no patch: case {case.id} would be an empty bag; cache it again"
                )
            if (store.scales, store.patch_size) != (first.scales, first.patch_size):
                raise BagError(
                    f"{store.path} has {store.patch_size} px patches at {store.scales} µm/px, {first.path.name} has"
                    f" {first.patch_size} px at {first.scales}; cache all slides with one setting"
                )


def _patch_bytes(cases: Sequence[Case], cache: Path) -> int:
    """Bytes of a patch's pixels, which are alike for all cases."""
    if not cases:
        return 0
    return 3 * PatchStore(cache / f"{cases[0].slides[0]}.zarr").patch_size ** 2


class _Piece(NamedTuple):
    """Patches of one scale of one slide."""

    patches: Tensor | Jpegs
    coords: np.ndarray
    scale: int


def _read(store: PatchStore, indices: np.ndarray, scale: int, encoded: bool) -> _Piece:
    if encoded:
        patches: Tensor | Jpegs = Jpegs.of(store.read_encoded(indices, scale))
    else:
        patches = torch.from_numpy(store.read(indices, scale))
    return _Piece(patches, store.coords(scale)[indices], scale)


def _patch_bag(case: Case, target: Target, pieces: Sequence[_Piece], *, last: bool) -> Bag:
    jpegs = [piece.patches for piece in pieces if isinstance(piece.patches, Jpegs)]
    pixels = [piece.patches for piece in pieces if isinstance(piece.patches, Tensor)]
    return make_bag(
        case,
        target,
        join_jpegs(jpegs) if jpegs else torch.cat(pixels) if len(pixels) > 1 else pixels[0],
        torch.cat([torch.full((len(piece.coords),), piece.scale) for piece in pieces]),
        torch.from_numpy(np.concatenate([piece.coords for piece in pieces])),
        last=last,
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
