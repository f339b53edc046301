"""The whole slide in small: a level averaged down, with background in place of damaged tiles."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from e2e_abmilx.errors import SlideError
from e2e_abmilx.slides.background import Colour, blank

logger = logging.getLogger(__name__)

_PART = 2048  # pixels along the side of the parts that are read and shrunk one by one

# Errors after which nothing is salvaged: a truncated file can be copied again, and a failed read can be repeated.
_NO_SALVAGE = (EOFError, OSError, MemoryError)

Read = Callable[[int, int, int, int], NDArray[np.uint8]]  # x, y, width, height → pixels


class Level(NamedTuple):
    """A level of a slide: its width and height, its level-0 pixels per pixel, its tiles, and how to read it."""

    size: tuple[int, int]
    downsample: float
    tile: tuple[int, int]
    background: Colour
    read: Read


def draw_thumbnail(name: object, levels: Sequence[Level], max_side: int) -> NDArray[np.uint8]:
    """Draw a thumbnail from the levels of a slide as :meth:`Slide.thumbnail` describes."""
    levels = sorted(levels, key=lambda level: level.downsample)
    size = levels[0].size
    shrink = max(1.0, max(size) / max_side)
    side = (max(1, round(size[0] / shrink)), max(1, round(size[1] / shrink)))
    best = max(level.downsample for level in levels if level.downsample <= shrink)
    found = []
    for level in levels:
        if level.downsample < best:
            continue
        lost, picture, error = _shrink_level(level, max(1, int(shrink / level.downsample)), side)
        if error is None:
            return picture
        found.append((lost, picture, error))
    lost, picture, error = min(found, key=itemgetter(0))
    if lost == 1 or isinstance(error.__cause__, _NO_SALVAGE):
        raise error
    text = "%.2g %% of the thumbnail of %s cannot be read and counts as glass, so no patches come from there: %s"
    logger.warning(text, 100 * lost, name, error)
    return picture


def read_shrunk(read: Read, box: tuple[int, int, int, int], shrink: int) -> NDArray[np.uint8]:
    """Read a rectangle (left, top, width, height) and average each square of ``shrink`` × ``shrink`` pixels to one."""
    left, top, width, height = box
    if shrink == 1:
        return read(*box)
    shrunk = np.empty((math.ceil(height / shrink), math.ceil(width / shrink), 3), np.uint8)
    step = max(1, _PART // shrink)  # in parts, so that a large rectangle is never in memory as a whole
    for row in range(0, shrunk.shape[0], step):
        for column in range(0, shrunk.shape[1], step):
            x, y = column * shrink, row * shrink
            size = (min(step * shrink, width - x), min(step * shrink, height - y))
            part = Image.fromarray(read(left + x, top + y, *size)).reduce(shrink)
            shrunk[row : row + step, column : column + step] = np.asarray(part)
    return shrunk


def _shrink_level(
    level: Level, factor: int, side: tuple[int, int]
) -> tuple[float, NDArray[np.uint8], SlideError | None]:
    """Resize a level to ``side``; return the fraction that cannot be read, the picture, and the error."""
    width, height = level.size
    salvage = _Salvage(level)
    pooled = Image.fromarray(read_shrunk(salvage.read, (0, 0, width, height), factor))
    box = (0.0, 0.0, width / factor, height / factor)
    picture = np.asarray(pooled.resize(side, Image.Resampling.HAMMING, box=box))
    return salvage.lost / (width * height), picture, salvage.error


class _Salvage:
    """Reads a level with background in place of the tiles that cannot be decoded.

    ``lost`` counts the pixels that could not be decoded; ``error`` is the first error after which nothing is salvaged,
    else the last error, or None.
    """

    def __init__(self, level: Level) -> None:
        self._level = level
        self.lost = 0
        self.error: SlideError | None = None

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read a rectangle, tile by tile if it cannot be read as a whole."""
        whole = self._try(x, y, width, height)
        if whole is not None:
            return whole
        region = blank(height, width, self._level.background)
        for top, bottom in _spans(y, y + height, self._level.tile[1]):
            for left, right in _spans(x, x + width, self._level.tile[0]):
                pixels = self._try(left, top, right - left, bottom - top)
                if pixels is None:
                    self.lost += (right - left) * (bottom - top)
                else:
                    region[top - y : bottom - y, left - x : right - x] = pixels
        return region

    def _try(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8] | None:
        try:
            return self._level.read(x, y, width, height)
        except SlideError as error:
            if self.error is None or not isinstance(self.error.__cause__, _NO_SALVAGE):
                self.error = error
            return None


def _spans(start: int, stop: int, step: int) -> Iterable[tuple[int, int]]:
    """Cut the range from ``start`` to ``stop`` at the multiples of ``step``."""
    return pairwise([start, *range((start // step + 1) * step, stop, step), stop])
