"""The attention of a slide's patches, their contributions to a score, and their positions on the slide.

Letters: N patches of the slide, H heads.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.errors import InputError
from e2e_abmilx.store import PatchStore


class HeatmapError(InputError):
    """A heatmap that cannot be drawn; the message names the remedy."""


@dataclass(frozen=True)
class Contribution:
    """The contribution of each patch of a slide to a score of its bag.

    Attributes:
        score: Name of the score, such as ``"log-odds of tumour"``.
        values: The score minus the score without the patch, shape ``(N,)``; see
            :func:`e2e_abmilx.heads.leave_one_out`.
    """

    score: str
    values: NDArray[np.floating]


@dataclass(frozen=True)
class SlideAttention:
    """The attention that each head pays to each patch of a slide.

    Attributes:
        store: The slide's patches.
        coords: Level-0 ``(x, y)`` of each patch's top left corner, shape ``(N, 2)``.
        scale: Number of the store's scale that each patch is from, shape ``(N,)``.
        heads: Weights times the number of patches in the bag, shape ``(H, N)``: 1 is uniform attention.
        contribution: What each patch adds to a score, if known.
    """

    store: PatchStore
    coords: NDArray[np.int64]
    scale: NDArray[np.int64]
    heads: NDArray[np.float32]
    contribution: Contribution | None = None

    @classmethod
    def from_weights(
        cls,
        store: PatchStore,
        coords: ArrayLike,
        scale: ArrayLike,
        attention: ArrayLike,
        *,
        bag_size: int | None = None,
        contribution: Contribution | None = None,
    ) -> Self:
        """Take the attention weights of a head.

        Args:
            store: The slide's patches.
            coords: Level-0 ``(x, y)`` of all patches of one or more scales, in the store's order, shape ``(N, 2)``.
            scale: Scale of each patch, shape ``(N,)``.
            attention: Weights, shape ``(H, N)``; each row sums to 1 over the bag.
            bag_size: Number of patches in the bag, by default N; larger if the bag has other slides too.
            contribution: What each patch adds to a score.

        Raises:
            HeatmapError: The store lacks the positions of its patches, or has other positions.
        """
        check_drawable(store)
        corners, scales = np.asarray(coords, np.int64), np.asarray(scale, np.int64)
        weights = np.asarray(attention, np.float32)
        for number in np.unique(scales):
            if not np.array_equal(corners[scales == number], store.coords(int(number))):
                raise HeatmapError(
                    f"the attention is of other patches than those at {store.scales[number]:g} µm/px in"
                    f" {store.path}; predict again with the present cache"
                )
        return cls(store, corners, scales, weights * (bag_size or weights.shape[1]), contribution)

    @property
    def present_scales(self) -> list[int]:
        """Numbers of the scales that have patches here, finest first."""
        return [int(number) for number in np.unique(self.scale)]

    @property
    def slide_size(self) -> tuple[int, int]:
        """Width and height of the slide, level-0 pixels."""
        width, height = self.store.attributes["slide_size"]
        return int(width), int(height)

    @property
    def qupath_origin(self) -> tuple[int, int]:
        """Level-0 ``(x, y)`` of QuPath's origin: the corner of the slide's bounds, or (0, 0) without bounds."""
        left, top = (self.store.attributes.get("slide_bounds") or (0, 0))[:2]
        return int(left), int(top)

    @property
    def slide_mpp(self) -> float:
        """µm per pixel of level 0."""
        return float(self.store.attributes["slide_mpp"])

    def footprint(self, scale: int) -> float:
        """Return the side of the square that a patch of a scale covers, level-0 pixels."""
        return float(self.store.attributes["footprints"][scale])

    def mean(self) -> NDArray[np.float32]:
        """Return the mean over the heads, shape ``(N,)``."""
        return np.asarray(self.heads.mean(axis=0))

    def rank(self) -> NDArray[np.int64]:
        """Return the rank of each patch by its mean attention, shape ``(N,)``; see :func:`rank_of`."""
        return rank_of(self.mean())

    def known_contribution(self) -> Contribution:
        """Return the contributions.

        Raises:
            HeatmapError: There are none.
        """
        if self.contribution is None:
            raise HeatmapError(
                "a heatmap of kind 'contribution' needs the contributions of the patches; pass"
                " contribution=Contribution(score, values) with values from e2e_abmilx.heads.leave_one_out"
            )
        return self.contribution


def rank_of(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return ranks from 1, the highest value, to N; both shapes ``(N,)``."""
    rank = np.empty(len(values), np.int64)
    rank[np.argsort(-values, kind="stable")] = np.arange(1, len(rank) + 1)
    return rank


def check_drawable(store: PatchStore) -> None:
    """Refuse a store that does not know where its patches lie on the slide.

    Raises:
        HeatmapError: The slide's size, µm per pixel, footprints, thumbnail or coordinates are missing.
    """
    needed = ("slide_size", "slide_mpp", "footprints")
    missing = [name for name in needed if store.attributes.get(name) is None]
    if store.thumbnail() is None:
        missing.append("thumbnail")
    if any((store.coords(scale) < 0).any() for scale in range(len(store.scales))):
        missing.append("coords")
    if missing:
        raise HeatmapError(
            f"{store.path} has no {', '.join(missing)}, so the positions of its patches on the slide are unknown;"
            " make the store from the slide itself, with `e2e-abmilx cache` or `import_coords`"
        )
