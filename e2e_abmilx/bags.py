"""Bags of patches: random multi-scale draws for training, whole slides in chunks for evaluation.

Letters, used in every tensor docstring of the package: B bags, N patches in a bag, M patches of any number of
bags, S patch side, D encoder features, C hidden features, H heads, K outputs.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from e2e_abmilx.cohort import Case
from e2e_abmilx.errors import InputError
from e2e_abmilx.store import PatchStore


class BagError(InputError):
    """A bag that cannot be made."""


class Target(NamedTuple):
    """What a case is trained towards.

    Attributes:
        label: Class, or time bin of a survival model; -1 where unknown.
        time: Months until the event or the censoring; NaN where unknown.
        event: 1 where the event happened, 0 where it was censored.
    """

    label: int = -1
    time: float = math.nan
    event: int = 0


class Bag(NamedTuple):
    """A batch: bags of patches, padded to the longest.

    Attributes:
        patches: uint8 pixels, shape ``(B, N, 3, S, S)``, or float features, shape ``(B, N, D)``.
        mask: True for a real patch, shape ``(B, N)``.
        scale: Which of the store's scales each patch is from, shape ``(B, N)``.
        coords: Level-0 ``(x, y)`` of each patch, shape ``(B, N, 2)``.
        label: Class or time bin, -1 where unknown, shape ``(B,)``.
        time: Months, shape ``(B,)``.
        event: 1 where the event happened, shape ``(B,)``.
        cases: Name of each case.
        last: False for a part of a case whose rest follows in the next batches.
    """

    patches: Tensor
    mask: Tensor
    scale: Tensor
    coords: Tensor
    label: Tensor
    time: Tensor
    event: Tensor
    cases: tuple[str, ...]
    last: bool


class Draw(NamedTuple):
    """Which random bag: a draw is a function of these two and the seed alone.

    Attributes:
        epoch: From 0.
        case: Position of the case in the data set.
    """

    epoch: int
    case: int


class Part(NamedTuple):
    """A piece of a slide that is evaluated at once."""

    case: int
    slide: str
    scale: int
    start: int
    stop: int
    last: bool


class RandomBags(Dataset[Bag]):
    """Random multi-scale bags, Eq. 2 of arXiv:2506.02408.

    Of ``patches_per_bag`` = s, ⌊s · coarse_share⌋ are drawn from the coarser scales and the rest from the finest,
    uniformly and without replacement over all slides of a case; a case with fewer gives what it has.

    Args:
        cases: The cases.
        targets: Their targets, in the same order.
        cache: Folder of the patch stores.
        patches_per_bag: s.
        coarse_share: Share of coarse patches, the paper's 1/r.
        seed: Of every draw.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        targets: Sequence[Target],
        cache: Path,
        *,
        patches_per_bag: int,
        coarse_share: float,
        seed: int,
    ) -> None:
        self.cases = cases
        self.targets = targets
        self.cache = cache
        self.patches_per_bag = patches_per_bag
        self.coarse_share = coarse_share
        self.seed = seed

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, draw: Draw) -> Bag:
        """Return a single bag without the dimension B."""
        case, target = self.cases[draw.case], self.targets[draw.case]
        rng = np.random.default_rng([self.seed, draw.epoch, zlib.crc32(case.id.encode())])
        stores = [PatchStore(self.cache / f"{slide}.zarr") for slide in case.slides]
        parts = []
        for scale, wanted in enumerate(self._counts(len(stores[0].scales))):
            sizes = [store.num_patches(scale) for store in stores]
            chosen = rng.permutation(sum(sizes))[:wanted]
            first = 0
            for store, size in zip(stores, sizes, strict=True):
                own = np.sort(chosen[(chosen >= first) & (chosen < first + size)]) - first
                first += size
                if len(own):
                    parts.append(_read(store, own, scale))
        return _patch_bag(case, target, parts, last=True)

    def _counts(self, scales: int) -> list[int]:
        """Patches of each scale, finest first."""
        coarse = int(self.patches_per_bag * self.coarse_share) if scales > 1 else 0
        each = [coarse // (scales - 1) + (k < coarse % (scales - 1)) for k in range(scales - 1)]
        return [self.patches_per_bag - coarse, *each]


class WholeSlides(Dataset[Bag]):
    """Every patch of the finest scale of every slide, in parts of bounded size, case after case.

    Args:
        cases: The cases.
        targets: Their targets, in the same order.
        cache: Folder of the patch stores.
        chunk_size: Patches in a part, at most.
    """

    def __init__(
        self, cases: Sequence[Case], targets: Sequence[Target], cache: Path, *, chunk_size: int
    ) -> None:
        self.cases = cases
        self.targets = targets
        self.cache = cache
        self.parts = [part for index in range(len(cases)) for part in self._split(index, chunk_size)]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Bag:
        """Return a part of a bag without the dimension B."""
        part = self.parts[index]
        store = PatchStore(self.cache / f"{part.slide}.zarr")
        patches = _read(store, np.arange(part.start, part.stop), part.scale)
        return _patch_bag(self.cases[part.case], self.targets[part.case], [patches], last=part.last)

    def _split(self, index: int, chunk_size: int) -> list[Part]:
        parts = []
        for slide in self.cases[index].slides:
            count = PatchStore(self.cache / f"{slide}.zarr").num_patches(0)
            parts += [
                Part(index, slide, 0, start, min(start + chunk_size, count), last=False)
                for start in range(0, count, chunk_size)
            ]
        parts[-1] = parts[-1]._replace(last=True)
        return parts


class FeatureBags(Dataset[Bag]):
    """All features of every case, for two-stage training: one ``<slide>.pt`` tensor ``(N, D)`` a slide.

    Args:
        cases: The cases.
        targets: Their targets, in the same order.
        folder: Folder of the feature files.
    """

    def __init__(self, cases: Sequence[Case], targets: Sequence[Target], folder: Path) -> None:
        self.cases = cases
        self.targets = targets
        self.folder = folder

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, which: Draw | int) -> Bag:
        """Return a single bag without the dimension B; its coordinates are unknown and zero."""
        index = which.case if isinstance(which, Draw) else which
        case = self.cases[index]
        features = torch.cat([load_features(self.folder / f"{slide}.pt") for slide in case.slides]).float()
        coords = torch.zeros(len(features), 2, dtype=torch.int64)
        return _make_bag(
            case, self.targets[index], features, torch.zeros(len(features)).long(), coords, last=True
        )


def load_features(path: Path) -> Tensor:
    """Map a file of features into memory, shape ``(N, D)``; nothing but tensors is unpickled.

    Raises:
        BagError: The file is no tensor of that shape.
    """
    try:
        features = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, UnpicklingError) as error:
        raise BagError(
            f"{path} cannot be read as a tensor ({error}); write features with torch.save"
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2 or not len(features):
        raise BagError(f"{path} must hold one tensor (patches, features), with at least one patch")
    return features


def check_features(cases: Sequence[Case], folder: Path) -> int:
    """Refuse feature files that cannot make bags together.

    Returns:
        D, the features of a patch.

    Raises:
        BagError: Files differ in their number of features, or are none.
    """
    paths = [folder / f"{slide}.pt" for case in cases for slide in case.slides]
    width = load_features(paths[0]).shape[1]
    for path in paths:
        other = load_features(path).shape[1]
        if other != width:
            raise BagError(
                f"{path} has {other} features a patch, {paths[0]} {width}; extract all with one encoder"
            )
    return width


class EpochSampler(Sampler[Draw]):
    """All bags once an epoch, shuffled by (seed, epoch).

    Args:
        size: Number of bags.
        seed: Of the order.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Draw]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        return iter([Draw(self.epoch, int(index)) for index in order])


def collate(bags: Sequence[Bag]) -> Bag:
    """Pad bags to the longest and stack them; padding is False in the mask."""
    longest = max(len(bag.mask) for bag in bags)

    def stack(tensors: Sequence[Tensor]) -> Tensor:
        padded = tensors[0].new_zeros(len(tensors), longest, *tensors[0].shape[1:])
        for row, tensor in zip(padded, tensors, strict=True):
            row[: len(tensor)] = tensor
        return padded

    return Bag(
        patches=_channels_first(stack([bag.patches for bag in bags])),
        mask=stack([bag.mask for bag in bags]),
        scale=stack([bag.scale for bag in bags]),
        coords=stack([bag.coords for bag in bags]),
        label=torch.stack([bag.label for bag in bags]),
        time=torch.stack([bag.time for bag in bags]),
        event=torch.stack([bag.event for bag in bags]),
        cases=tuple(name for bag in bags for name in bag.cases),
        last=all(bag.last for bag in bags),
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


def _read(store: PatchStore, indices: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray, int]:
    return store.read(indices, scale), store.coords(scale)[indices], scale


def _patch_bag(
    case: Case, target: Target, parts: Sequence[tuple[np.ndarray, np.ndarray, int]], *, last: bool
) -> Bag:
    patches = torch.from_numpy(np.concatenate([pixels for pixels, _, _ in parts]))
    coords = torch.from_numpy(np.concatenate([coords for _, coords, _ in parts]))
    scale = torch.cat([torch.full((len(pixels),), number) for pixels, _, number in parts])
    return _make_bag(case, target, patches, scale, coords, last=last)


def _make_bag(
    case: Case, target: Target, patches: Tensor, scale: Tensor, coords: Tensor, *, last: bool
) -> Bag:
    return Bag(
        patches=patches,
        mask=torch.ones(len(patches), dtype=torch.bool),
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
