"""Painting of patches onto the pixels of a small picture of the slide."""

import numpy as np
from numpy.typing import NDArray


class Raster:
    """A picture of the whole slide, and the pixels of it that each patch covers.

    Each patch adds its value at its four corners, with alternating signs, and two cumulative sums fill the
    square (a summed-area table in reverse). The time depends neither on the size of patches nor on their overlap.

    Args:
        coords: Level-0 ``(x, y)`` of each patch's top left corner, shape ``(N, 2)``.
        footprint: Side of a patch, level-0 pixels.
        slide_size: Width and height of the slide, level-0 pixels.
        shape: Height h and width w of the picture.
    """

    def __init__(
        self, coords: NDArray[np.int64], footprint: float, slide_size: tuple[int, int], shape: tuple[int, int]
    ) -> None:
        self.shape = shape
        left, right = _edges(coords[:, 0], footprint, slide_size[0], shape[1])
        top, bottom = _edges(coords[:, 1], footprint, slide_size[1], shape[0])
        width = shape[1] + 1  # a patch may end at the border
        opening = [top * width + left, bottom * width + right]
        closing = [top * width + right, bottom * width + left]
        self._corners = np.concatenate(opening + closing)
        self._count = self._fill(np.ones(len(coords)))

    def paint(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the mean of values ``(N,)`` over the patches that cover a pixel, shape ``(h, w)``; NaN without any."""
        mean = np.full(self.shape, np.nan, np.float32)
        np.divide(self._fill(values), self._count, out=mean, where=self._count > 0, casting="same_kind")
        return mean

    def _fill(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the sum over the patches that cover each pixel; exact if the values are whole numbers."""
        height, width = self.shape
        signed = np.concatenate([values, values, -values, -values]).astype(np.float64)
        plane = np.bincount(self._corners, signed, minlength=(height + 1) * (width + 1))
        return np.asarray(plane.reshape(height + 1, width + 1).cumsum(axis=0).cumsum(axis=1)[:-1, :-1])


def _edges(
    origins: NDArray[np.int64], footprint: float, length: int, pixels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first pixel and the pixel after the last of each patch along one axis: at least one pixel."""
    first = np.rint(origins * (pixels / length)).astype(np.int64).clip(0, pixels - 1)
    end = np.rint((origins + footprint) * (pixels / length)).astype(np.int64).clip(first + 1, pixels)
    return first, end
