"""Draws of patches: which patches of a case form a training bag."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from e2e_abmilx.data.bag import BagError
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.locations import ObjectUrl


class PatchDraw(ABC):
    """How the patches of a training bag are drawn, at each scale by itself."""

    def check(self, stores: Iterable[PatchStore]) -> None:  # noqa: B027 - most draws need nothing
        """Refuse, by a :class:`~e2e_abmilx.data.bag.BagError`, stores that lack what the draw needs; by default none."""

    @abstractmethod
    def choose(
        self, rng: np.random.Generator, case: str, scale: int, stores: Sequence[PatchStore], wanted: int
    ) -> NDArray[np.int64]:
        """Return the drawn patches, without repetition: as many as are wanted, or all if there are fewer.

        Args:
            rng: The only source of randomness.
            case: Name of the case.
            scale: Index of the scale.
            stores: The slides of the case.
            wanted: Number of patches to draw.

        Returns:
            Positions among the patches of all slides at this scale, counted slide by slide.
        """


class UniformDraw(PatchDraw):
    """Every patch of a case is equally likely."""

    def choose(
        self, rng: np.random.Generator, case: str, scale: int, stores: Sequence[PatchStore], wanted: int
    ) -> NDArray[np.int64]:
        """Return random patches."""
        return rng.permutation(_count(stores, scale))[:wanted]


class RunDraw(PatchDraw):
    """Bags of contiguous runs of patches, for stores whose patches lie in random order, as ``e2e-abmilx push`` writes them.

    The patches of all slides of a case, one slide after another, form a circle of N positions. It is cut into runs of
    ``run_length`` patches, beginning at a random position, and as many runs as are needed are drawn without replacement;
    the last one drawn is shortened. No patch is drawn twice, and slides give patches in proportion to their numbers.

    Every patch is equally likely: the drawn set is a random set T of positions, shifted by an offset that is uniform in
    0 … N − 1 and independent of T. A patch is drawn with probability E|T| / N, which is the same for all. Unlike in a
    :class:`~e2e_abmilx.data.draws.UniformDraw`, patches that lie within ``run_length`` of each other in the store are often
    drawn together, in every epoch; since their order is random, they are a random sample of the slide.

    A bag of 512 patches from two scales takes 8 reads of 64 patches, about 2 MB each. A run that crosses the end of a slide,
    of a shard (4096 patches) or of the circle takes two.

    Args:
        run_length: Patches of a run; 1 draws single patches.
    """

    def __init__(self, run_length: int = 64) -> None:
        if run_length < 1:
            raise ValueError(f"run_length is {run_length}; it counts patches and must be at least 1")
        self.run_length = run_length

    def check(self, stores: Iterable[PatchStore]) -> None:
        """Refuse a cache whose first store is not in random order; the others are looked at when they are drawn from."""
        for store in stores:
            self._refuse_order(store)
            return

    def choose(
        self, rng: np.random.Generator, case: str, scale: int, stores: Sequence[PatchStore], wanted: int
    ) -> NDArray[np.int64]:
        """Return random runs.

        Raises:
            BagError: The patches of a store are not in random order, so that those of a run would be neighbours.
        """
        for store in stores:
            self._refuse_order(store)
        total = _count(stores, scale)
        if wanted >= total:
            return np.arange(total)
        positions = self._runs(rng, total, wanted)
        chosen: NDArray[np.int64] = (positions + rng.integers(total)) % total
        return chosen

    def _runs(self, rng: np.random.Generator, total: int, wanted: int) -> NDArray[np.int64]:
        """Return the positions of random runs, before the shift."""
        length = self.run_length
        starts = rng.permutation(total // length)[: -(-wanted // length)] * length
        if len(starts) * length < wanted:  # all whole runs, and the beginning of the rest
            return np.arange(wanted)
        return (starts[:, None] + np.arange(length)).ravel()[:wanted]

    def _refuse_order(self, store: PatchStore) -> None:
        if store.order_seed is None:
            raise BagError(
                f"the patches of {store.path} lie row by row, so those of a run would be neighbours on the slide; draw"
                " uniformly from a local cache (leave data.draw out), or use a cache that `e2e-abmilx push` wrote"
            )


class RegionalDraw(PatchDraw):
    """Every region of a slide gives equally many patches: regional sampling, Table 9 of arXiv:2506.02408.

    The area of each slide that has patches is divided into ``regions`` × ``regions`` equal rectangles. The rectangles
    take turns, in random order: each gives one of its patches, drawn uniformly, then each gives a second, until the bag
    is full; a rectangle without further patches is skipped. Over many draws every patch occurs, but a patch of a
    sparse region occurs more often than in a :class:`UniformDraw`. The rectangles of several slides take turns together.

    The authors' code, which does not run, lays the list of patches out as a square and divides that; here the
    rectangles are those of the slide.

    Args:
        regions: Number of rectangles along each side of a slide; the paper compares 2, 4 and 8.
    """

    def __init__(self, regions: int = 4) -> None:
        if regions < 1:
            raise ValueError(
                f"regions is {regions}; it counts rectangles along a side of a slide and must be at least 1"
            )
        self.regions = regions

    def check(self, stores: Iterable[PatchStore]) -> None:
        """Refuse stores that do not record where their patches lie; in a bucket only the first is looked at now."""
        for store in stores:
            for scale in range(len(store.scales)):
                self._refuse_unplaced(store, scale)
            if isinstance(store.path, ObjectUrl):  # each takes a request
                return

    def choose(
        self, rng: np.random.Generator, case: str, scale: int, stores: Sequence[PatchStore], wanted: int
    ) -> NDArray[np.int64]:
        """Return random patches of all regions in turn.

        Raises:
            BagError: A store does not record where its patches lie.
        """
        for store in stores:
            self._refuse_unplaced(store, scale)
        slides = [self.regions_of(store.coords(scale)) + k * self.regions**2 for k, store in enumerate(stores)]
        order = rng.permutation(_count(stores, scale))
        region = np.concatenate(slides)[order]
        turn = rng.permutation(len(stores) * self.regions**2)[region]
        return order[np.lexsort((turn, _earlier_equals(region)))][:wanted]

    def _refuse_unplaced(self, store: PatchStore, scale: int) -> None:
        if (store.coords(scale) < 0).any():
            raise BagError(
                f"{store.path} has no coords, so RegionalDraw cannot tell the regions of its patches; make the store"
                " from the slide itself, with `e2e-abmilx cache` or `import_coords`, or draw uniformly (leave data.draw"
                " out)"
            )

    def regions_of(self, coords: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the region of each patch of a slide, shape ``(N,)``, from its ``(x, y)``."""
        if not len(coords):
            return np.empty(0, np.int64)
        offset = coords - coords.min(0)
        column, row = (offset * self.regions // (offset.max(0) + 1)).T
        region: NDArray[np.int64] = row * self.regions + column
        return region


class AttentionDraw(PatchDraw):
    """Patches are drawn by the attention that the model pays to them: attention sampling, Table 7 of arXiv:2506.02408.

    Before each epoch but the first, whose model is untrained, the current model scores all patches of the cases to be
    drawn, which takes far longer than training on bags of them. A ``fraction`` of each bag is then drawn without
    replacement with probabilities in proportion to attention, averaged over heads, and the rest uniformly from the
    remaining patches; the first epoch draws uniformly.

    A head that attends to all patches equally thus draws uniformly, and one that attends to a few patches draws these
    whenever they fit; unlike the most attended patches alone, bags stay random, and no patch is lost for good.

    Args:
        fraction: Fraction of the patches that are drawn by attention; 1 draws all of them so.
    """

    def __init__(self, fraction: float = 0.5) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction is {fraction}; it is a fraction of the bag and must be in (0, 1]")
        self.fraction = fraction
        #: By case, the attention of the model to the case's patches, for each scale, slide by slide, shape ``(N,)``;
        #: empty in the first epoch.
        self.attention: Mapping[str, Sequence[NDArray[np.float32]]] = {}
        #: The epoch that the attention is for.
        self.epoch = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the attention and its epoch, in a form that a checkpoint keeps without pickled classes."""
        attention = {case: [torch.from_numpy(one) for one in scales] for case, scales in self.attention.items()}
        return {"epoch": self.epoch, "attention": attention}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.epoch = state["epoch"]
        self.attention = {case: [one.numpy() for one in scales] for case, scales in state["attention"].items()}

    def choose(
        self, rng: np.random.Generator, case: str, scale: int, stores: Sequence[PatchStore], wanted: int
    ) -> NDArray[np.int64]:
        """Return patches drawn by attention, followed by uniformly drawn ones.

        Raises:
            BagError: The case has not been scored, or its stores have changed since.
        """
        order = rng.permutation(_count(stores, scale))
        if not self.attention or not wanted or not len(order):
            return order[:wanted]
        attention = self.attention.get(case, [])
        if scale >= len(attention) or len(attention[scale]) != len(order):
            raise BagError(f"case {case} has {len(order)} patches at scale {scale}, and the model has not scored them")
        # the largest of log p + Gumbel noise are a draw without replacement; attention that has underflowed counts as tiny
        floored = np.maximum(attention[scale], np.finfo(np.float32).tiny).astype(np.float64)
        keys = np.log(floored) + rng.gumbel(size=len(order))
        attended = np.argsort(-keys)[: round(wanted * self.fraction)]
        rest = order[~np.isin(order, attended)]
        return np.concatenate([attended, rest[: wanted - len(attended)]])


def _count(stores: Sequence[PatchStore], scale: int) -> int:
    return sum(store.num_patches(scale) for store in stores)


def _earlier_equals(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each element, the number of earlier elements that are equal.

    >>> _earlier_equals(np.array([7, 3, 7, 7, 3])).tolist()
    [0, 0, 1, 2, 1]
    """
    by_value = np.argsort(values, kind="stable")
    ordered = values[by_value]
    earlier = np.empty_like(by_value)
    earlier[by_value] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return earlier
