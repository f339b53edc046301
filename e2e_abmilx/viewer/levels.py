"""The levels and tiles of a picture for deep zoom: level L - 1 is the slide itself, each level below has half its size.

A tile covers 256 × 256 pixels of its level, without overlap. Tiles at the right and lower edge are smaller; they end
exactly where the slide ends, also where that is a fraction of a pixel.
"""

import math
from typing import NamedTuple

TILE = 256


class Box(NamedTuple):
    """A rectangle of level 0: its left, upper, right and lower edge, in pixels that may be fractional."""

    left: float
    top: float
    right: float
    bottom: float


def num_levels(size: tuple[int, int]) -> int:
    """Return the number of levels of a slide of this width and height: the coarsest is one tile."""
    return max(0, math.ceil(math.log2(max(size) / TILE))) + 1


def tile_box(size: tuple[int, int], level: int, column: int, row: int) -> tuple[Box, tuple[int, int]] | None:
    """Return the rectangle that a tile covers, and the tile's width and height; None if there is no such tile."""
    if not 0 <= level < num_levels(size) or column < 0 or row < 0:
        return None
    downsample = 2 ** (num_levels(size) - 1 - level)
    left, top = column * TILE * downsample, row * TILE * downsample
    if left >= size[0] or top >= size[1]:
        return None
    right, bottom = min(left + TILE * downsample, size[0]), min(top + TILE * downsample, size[1])
    shape = (math.ceil((right - left) / downsample), math.ceil((bottom - top) / downsample))
    return Box(left, top, right, bottom), shape


def fitted(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Return the size of the whole slide in small, at most ``max_side`` pixels along its longer side."""
    shrink = max(1.0, max(size) / max_side)
    return max(1, round(size[0] / shrink)), max(1, round(size[1] / shrink))
