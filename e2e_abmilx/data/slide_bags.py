"""Bags of patches: random multi-scale draws for training, whole slides in chunks for evaluation."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Bag, BagError, BagSource, Part, Target, make_bag
from e2e_abmilx.data.jpegs import Jpegs, join_jpegs
from e2e_abmilx.data.samplers import Draw
from e2e_abmilx.store import PatchStore


class RandomBags(BagSource):
    """Random multi-scale bags, Eq. 2 of arXiv:2506.02408.

    Of ``patches_per_bag`` = s, ⌊s · coarse_fraction⌋ are drawn from the coarser scales and the rest from the finest,
    uniformly and without replacement over all slides of a case.

    Args:
        cases: The cases.
        targets: Their targets, in the same order.
        cache: Folder of the patch stores.
        patches_per_bag: s.
        coarse_fraction: Share of coarse patches, the paper's 1/r.
        seed: Of every draw.
        padding: What becomes of a case with fewer patches: ``"mask"`` gives what it has, and padding is neither
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
        coarse_fraction: float,
        seed: int,
        padding: Literal["mask", "duplicate"] = "mask",
        encoded: bool = False,
    ) -> None:
        self.cases = cases
        self.targets = targets
        self.cache = cache
        self.patches_per_bag = patches_per_bag
        self.coarse_fraction = coarse_fraction
        self.seed = seed
        self.padding = padding
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
        if self.padding == "duplicate" and 0 < available < wanted:
            return np.concatenate([chosen, rng.integers(available, size=wanted - available)])
        return chosen

    def _counts(self, scales: int) -> list[int]:
        """Patches of each scale, finest first."""
        coarse = int(self.patches_per_bag * self.coarse_fraction) if scales > 1 else 0
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

    size_settings = "data.eval_chunk_size"

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
