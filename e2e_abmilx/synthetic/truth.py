"""Where tissue and lesion lie on a slide."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.synthetic.surfaces import double, noise

#: Level-0 pixels along the side of one pixel of the masks.
MASK_DOWNSAMPLE = 8


class Truth(NamedTuple):
    """Where tissue and lesion really are on a slide.

    Attributes:
        tissue: True on tissue, shape ``(side / 8, side / 8)``.
        lesion: True on lesion, same shape; always inside the tissue.
    """

    tissue: NDArray[np.bool_]
    lesion: NDArray[np.bool_]

    @property
    def lesion_share(self) -> float:
        """Lesion area as a share of the tissue area."""
        return float(self.lesion.sum() / self.tissue.sum())


def lay_out(rng: np.random.Generator, side: int, lesion_share: float) -> tuple[Truth, NDArray[np.uint8]]:
    """Place tissue and lesions on the masks' grid of ``side`` pixels.

    Returns:
        The masks, and how far tissue covers each level-0 pixel, 0-255, shape ``(8 side, 8 side)``.
    """
    pieces = int(rng.integers(1, 4))
    turn = 2 * np.pi * (rng.random() + np.arange(pieces) / pieces)
    off_centre = 0.04 if pieces == 1 else 0.28
    heights = _hills(rng, side, 0.5 + off_centre * np.stack([np.sin(turn), np.cos(turn)], axis=1))
    tissue = _highest(heights, round((0.42 + 0.16 * rng.random()) * side**2))

    spots = np.argwhere(tissue)[rng.integers(tissue.sum(), size=int(rng.integers(1, 4)))] / side
    inside = np.where(tissue, _hills(rng, side, spots), -np.inf)
    lesion = _highest(inside, round(lesion_share * tissue.sum()))

    steepness = 12_000  # the edge goes from 0 to 255 within about 10 level-0 pixels of a side of 2048
    cover = np.clip(steepness * (heights - heights[tissue].min()), -4000, 4000).astype(np.int16)
    for _ in range(MASK_DOWNSAMPLE.bit_length() - 1):
        cover = double(cover)
    return Truth(tissue, lesion), np.clip(cover + 128, 0, 255).astype(np.uint8)


def _hills(rng: np.random.Generator, side: int, centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """A surface, shape ``(side, side)``, with a ragged oval hill at each centre ``(row, column)`` in shares of it."""
    rows, columns = np.mgrid[:side, :side] / side
    hills = []
    for row, column in centres:
        turn, stretch = np.pi * rng.random(), 1 + 0.6 * rng.random()
        along = (columns - column) * np.cos(turn) + (rows - row) * np.sin(turn)
        across = (rows - row) * np.cos(turn) - (columns - column) * np.sin(turn)
        hills.append(-np.hypot(along, across * stretch))
    ragged = noise(rng, side, {32: 60, 16: 50, 8: 30, 4: 14, 2: 6}) / 800
    towards_edge = np.maximum(abs(rows - 0.5), abs(columns - 0.5))
    surface: NDArray[np.float64] = np.max(hills, axis=0) + ragged - 2 * np.maximum(towards_edge - 0.42, 0)
    return surface


def _highest(surface: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Where a surface has its ``count`` highest values."""
    if count == 0:
        return np.zeros(surface.shape, np.bool_)
    lowest = np.partition(surface, -count, axis=None)[-count]
    return np.asarray(surface >= lowest)
