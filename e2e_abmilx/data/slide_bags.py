"""Bags of patches: random multi-scale draws for training, whole slides in parts for evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Bag, BagError, BagSource, Part, Target, make_bag
from e2e_abmilx.data.draws import AttentionDraw, PatchDraw, UniformDraw
from e2e_abmilx.data.inputs import EvalScales
from e2e_abmilx.data.jpegs import Jpegs
from e2e_abmilx.data.samplers import Draw, rows_by_slide
from e2e_abmilx.store import CohortIndex, PatchStore, StoreFacts
from e2e_abmilx.store.disk_cache import DiskCache
from e2e_abmilx.store.locations import Location, ObjectUrl, as_location, store_path


@dataclass(eq=False, repr=False)
class RandomBags(BagSource):
    """Random multi-scale bags, Eq. 2 of arXiv:2506.02408.

    Of ``patches_per_bag`` = s patches, ⌊s · coarse_fraction⌋ are drawn from the coarser scales and the others from the
    finest scale, without replacement over all slides of a case, by ``draw``, which is uniform by default; the paper
    calls the fraction 1/r. A case with fewer patches gets those that exist, and padding that is neither encoded nor
    attended to (``"mask"``), or random patches are repeated up to s, as the authors do (``"duplicate"``). If
    ``encoded``, patches stay JPEG-encoded, for decoding on the device. Patches read from a bucket are kept in
    ``local_cache``. The targets are in the order of the cases.

    Raises:
        BagError: A store lacks what the draw needs.
    """

    cases: Sequence[Case]
    targets: Sequence[Target]
    cache: Location
    _: KW_ONLY
    patches_per_bag: int
    coarse_fraction: float
    seed: int
    padding: Literal["mask", "duplicate"] = "mask"
    encoded: bool = False
    draw: PatchDraw = field(default_factory=UniformDraw)
    local_cache: DiskCache | None = None

    size_settings = "data.batch_size or data.patches_per_bag"

    def __post_init__(self) -> None:
        self.cache = as_location(self.cache)
        self.follows_model = isinstance(self.draw, AttentionDraw)
        self.reads_objects = isinstance(self.cache, ObjectUrl)
        self.draw.check(PatchStore(store_path(self.cache, slide)) for case in self.cases for slide in case.slides)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: Draw | int) -> Bag:
        """Return a single bag; an integer is the draw of that case in the first epoch."""
        draw = Draw.of(index)
        case = self.cases[draw.case]
        rng = draw.rng(self.seed, case.id)
        stores = [PatchStore(store_path(self.cache, slide), self.local_cache) for slide in case.slides]
        pieces: list[tuple[PatchStore, np.ndarray, int]] = []
        for scale, wanted in enumerate(self._counts(len(stores[0].scales))):
            sizes = [store.num_patches(scale) for store in stores]
            chosen = self.draw.choose(rng, case.id, scale, stores, wanted)
            if self.padding == "duplicate" and 0 < len(chosen) < wanted:
                chosen = np.concatenate([chosen, rng.integers(sum(sizes), size=wanted - len(chosen))])
            chosen_rows = zip(stores, rows_by_slide(chosen, sizes), strict=True)
            pieces += [(store, _row_by_row(store, rows, scale), scale) for store, rows in chosen_rows if len(rows)]
        return _read_bag(case, self.targets[draw.case], pieces, encoded=self.encoded, last=True)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the pixels of a bag."""
        if not self.cases:
            return 0
        return self.patches_per_bag * 3 * PatchStore(store_path(self.cache, self.cases[0].slides[0])).patch_size ** 2

    def _counts(self, scales: int) -> list[int]:
        """Return the number of patches to draw from each scale, finest first."""
        coarse = int(self.patches_per_bag * self.coarse_fraction) if scales > 1 else 0
        each = [coarse // (scales - 1) + (k < coarse % (scales - 1)) for k in range(scales - 1)]
        return [self.patches_per_bag - coarse, *each]


@dataclass(eq=False, repr=False)
class WholeSlides(BagSource):
    """Every patch of every slide, case by case, in parts of at most ``chunk_size`` patches.

    The paper uses the finest scale. ``encoded``, ``local_cache`` and the targets are as in :class:`RandomBags`.
    ``index`` is that of the cache, if it was read before; reading it again from a bucket takes a request.
    """

    cases: Sequence[Case]
    targets: Sequence[Target]
    cache: Location
    _: KW_ONLY
    chunk_size: int
    scales: EvalScales = "finest"
    encoded: bool = False
    local_cache: DiskCache | None = None
    index: InitVar[CohortIndex | None] = None

    size_settings = "data.eval_chunk_size"

    def __post_init__(self, index: CohortIndex | None) -> None:
        self.cache = as_location(self.cache)
        self.reads_objects = isinstance(self.cache, ObjectUrl)
        index = index or CohortIndex(self.cache)
        found = {slide: index[slide] for case in self.cases for slide in case.slides}
        self._patch_bytes = 3 * max((store.patch_size for store in found.values()), default=0) ** 2
        self._checksums = {slide: store.checksum for slide, store in found.items()}
        #: The part that each item is.
        self.parts = [part for index in range(len(self.cases)) for part in self._split(index, found)]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Bag:
        """Return a part of a slide as a single bag."""
        part = self.parts[index]
        store = PatchStore(store_path(self.cache, part.slide), self.local_cache)
        if store.checksum != self._checksums[part.slide]:
            raise BagError(f"{store.path} was rebuilt after its patches had been counted; start again")
        rows = np.arange(part.start, part.stop)
        case, target = self.cases[part.case], self.targets[part.case]
        bag = _read_bag(case, target, [(store, rows, part.scale)], encoded=self.encoded, last=part.last)
        if store.order_seed is None:
            return bag
        return bag._replace(order=torch.from_numpy(part.before + row_ranks(store, part.scale)[rows]))

    @property
    def largest_bytes(self) -> int:
        """Bytes of the pixels of the largest part."""
        most = max((part.stop - part.start for part in self.parts), default=0)
        return most * self._patch_bytes

    def _split(self, case: int, stores: Mapping[str, StoreFacts]) -> list[Part]:
        parts: list[Part] = []
        before = 0
        for slide in self.cases[case].slides:
            counts = stores[slide].counts
            for scale, count in enumerate(counts if self.scales == "all" else counts[:1]):
                for start in range(0, count, self.chunk_size):
                    stop = min(start + self.chunk_size, count)
                    parts.append(Part(case, slide, scale, start, stop, last=False, before=before))
                before += count
        parts[-1] = parts[-1]._replace(last=True)
        return parts


def check_stores(cases: Sequence[Case], index: CohortIndex) -> None:
    """Refuse stores of a cohort that cannot be used in the same bags.

    Raises:
        BagError: A store has no patch, or stores differ in scales or patch size.
    """
    first: StoreFacts | None = None
    for case in cases:
        for slide in case.slides:
            store, path = index[slide], store_path(index.folder, slide)
            first = first or store
            if not store.counts[0]:
                raise BagError(f"{path} holds no patch: case {case.id} would be an empty bag; cache it again")
            if (store.scales, store.patch_size) != (first.scales, first.patch_size):
                raise BagError(
                    f"{path} has {store.patch_size} px patches at {store.scales} µm/px, {first.name}.zarr has"
                    f" {first.patch_size} px at {first.scales}; cache all slides with the same settings"
                )
    index.save()


def _row_by_row(store: PatchStore, rows: NDArray[np.int64], scale: int) -> NDArray[np.int64]:
    """Return patches in the order in which they lie on the slide, which for some heads is the order of a sequence."""
    return rows if store.order_seed is None else rows[np.argsort(row_ranks(store, scale)[rows])]


def row_ranks(store: PatchStore, scale: int) -> NDArray[np.int64]:
    """Return the rank of each patch of a store in random order, row by row, shape (N,)."""
    coords = store.coords(scale)
    ranks = np.empty(len(coords), np.int64)
    ranks[np.lexsort(coords.T)] = np.arange(len(coords))
    return ranks


def _read_bag(
    case: Case, target: Target, pieces: Sequence[tuple[PatchStore, np.ndarray, int]], *, encoded: bool, last: bool
) -> Bag:
    """Read patches into a bag; each piece is a store with the indices of patches at one of its scales."""
    patches: Tensor | Jpegs
    if encoded:
        patches = Jpegs.of([stream for store, rows, scale in pieces for stream in store.read_encoded(rows, scale)])
    else:
        pixels = [torch.from_numpy(store.read(rows, scale)) for store, rows, scale in pieces]
        patches = torch.cat(pixels) if len(pixels) > 1 else pixels[0]
    scales = torch.cat([torch.full((len(rows),), scale) for _, rows, scale in pieces])
    coords = np.concatenate([store.coords(scale)[rows] for store, rows, scale in pieces])
    return make_bag(case, target, patches, scales, torch.from_numpy(coords), last=last)
