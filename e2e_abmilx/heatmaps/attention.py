"""The attention of one slide's patches, what they contribute, and where they lie.

Letters: N patches of the slide, H heads.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e2e_abmilx.errors import InputError
from e2e_abmilx.store import PatchStore


class HeatmapError(InputError):
    """A slide whose attention cannot be drawn; the message names the cure."""


@dataclass(frozen=True)
class Contribution:
    """What each patch of a slide adds to a score of its bag.

    Attributes:
        score: What the score is, such as ``"log-odds of tumour"``.
        values: The score minus what it would be without the patch, shape ``(N,)``; see
            :func:`e2e_abmilx.heads.leave_one_out`.
    """

    score: str
    values: NDArray[np.floating]


@dataclass(frozen=True)
class SlideAttention:
    """How much a head looks at each patch of a slide.

    Attributes:
        store: The slide's patches.
        coords: Level-0 ``(x, y)`` of each patch's top left corner, shape ``(N, 2)``.
        scale: Which of the store's scales each patch is from, shape ``(N,)``.
        heads: Attention relative to uniform, shape ``(H, N)``: 1 is as much as each patch of the bag would
            get if all got the same.
        contribution: What each patch adds to a score, where that is known.
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
        """Take attention as a head gives it.

        Args:
            store: The slide's patches.
            coords: Level-0 ``(x, y)`` of each patch, shape ``(N, 2)``: of all patches of one or more scales,
                in the order of the store, which is that of prediction.
            scale: Scale of each patch, shape ``(N,)``.
            attention: Weights, shape ``(H, N)``; each row sums to 1 over the bag.
            bag_size: Patches in the whole bag, where it holds other slides too; by default N.
            contribution: What each patch adds to a score.

        Raises:
            HeatmapError: The store does not say where its patches lie, or they lie elsewhere.
        """
        check_drawable(store)
        corners, scales = np.asarray(coords, np.int64), np.asarray(scale, np.int64)
        weights = np.asarray(attention, np.float32)
        for number in np.unique(scales):
            if not np.array_equal(corners[scales == number], store.coords(int(number))):
                raise HeatmapError(
                    f"the attention is of other patches than those at {store.scales[number]:g} µm/px in"
                    f" {store.path}; predict again with the cache as it is now"
                )
        return cls(store, corners, scales, weights * (bag_size or weights.shape[1]), contribution)

    @property
    def present_scales(self) -> list[int]:
        """The scales that there are patches of, finest first."""
        return [int(number) for number in np.unique(self.scale)]

    @property
    def slide_size(self) -> tuple[int, int]:
        """Width and height of the slide, level-0 pixels."""
        width, height = self.store.attributes["slide_size"]
        return int(width), int(height)

    @property
    def qupath_origin(self) -> tuple[int, int]:
        """Level-0 ``(x, y)`` of the corner from which QuPath counts: that of the slide's bounds, or (0, 0) without any."""
        left, top = (self.store.attributes.get("slide_bounds") or (0, 0))[:2]
        return int(left), int(top)

    @property
    def slide_mpp(self) -> float:
        """Level-0 µm per pixel."""
        return float(self.store.attributes["slide_mpp"])

    def footprint(self, scale: int) -> float:
        """Side of the square that a patch of a scale covers, level-0 pixels."""
        return float(self.store.attributes["footprints"][scale])

    def mean(self) -> NDArray[np.float32]:
        """Mean over the heads, shape ``(N,)``."""
        mean: NDArray[np.float32] = self.heads.mean(axis=0)
        return mean

    def rank(self) -> NDArray[np.int64]:
        """1 for the patch of the slide with the highest mean, 2 for the next … N, shape ``(N,)``."""
        return rank_of(self.mean())

    def known_contribution(self) -> Contribution:
        """Return the contributions.

        Raises:
            HeatmapError: Nobody has computed them.
        """
        if self.contribution is None:
            raise HeatmapError(
                "a heatmap of kind 'contribution' needs the contributions of the patches; pass"
                " contribution=Contribution(score, values) with values from e2e_abmilx.heads.leave_one_out"
            )
        return self.contribution


def rank_of(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """1 for the patch with the highest value, 2 for the next … N; both shapes ``(N,)``."""
    rank = np.empty(len(values), np.int64)
    rank[np.argsort(-values, kind="stable")] = np.arange(1, len(rank) + 1)
    return rank


def check_drawable(store: PatchStore) -> None:
    """Refuse a store that does not say how its patches lie on its slide.

    Raises:
        HeatmapError: It lacks its slide's size, µm per pixel, footprints, thumbnail or coordinates.
    """
    needed = ("slide_size", "slide_mpp", "footprints")
    missing = [name for name in needed if store.attributes.get(name) is None]
    if store.thumbnail() is None:
        missing.append("thumbnail")
    if any((store.coords(scale) < 0).any() for scale in range(len(store.scales))):
        missing.append("coords")
    if missing:
        raise HeatmapError(
            f"{store.path} does not know its {', '.join(missing)}, so nobody can say where its patches lie on"
            " the slide; make it from the slide itself, with `e2e-abmilx cache` or `import_coords`"
        )
