"""Smooth random surfaces, of integers that are the same on every machine."""

import numpy as np
from numpy.typing import NDArray


def noise(rng: np.random.Generator, side: int, amplitudes: dict[int, int]) -> NDArray[np.int16]:
    """Sum of smooth random surfaces, shape ``(side, side)``.

    Args:
        rng: Source of the random numbers.
        side: Pixels along the side, a multiple of the widest cell.
        amplitudes: ``{cell width in pixels, a power of two: amplitude}``.
    """
    width = max(amplitudes)
    surface = np.zeros((side // width, side // width), np.int16)
    while True:
        amplitude = amplitudes.get(width, 0)
        surface += rng.integers(-amplitude, amplitude, size=surface.shape, dtype=np.int16, endpoint=True)
        if width == 1:
            return surface
        surface = double(surface)
        width //= 2


def double(surface: NDArray[np.int16]) -> NDArray[np.int16]:
    """Enlarge ``(n, n)`` to ``(2n, 2n)``: along each axis a new pixel is 3/4 its own old one and 1/4 the nearest."""
    n = len(surface)
    old = np.pad(surface, 1, mode="edge")
    wide = np.empty((n + 2, 2 * n), np.int16)
    own = 3 * old[:, 1:-1] + 2
    np.add(own, old[:, :-2], out=wide[:, 0::2])
    np.add(own, old[:, 2:], out=wide[:, 1::2])
    wide >>= 2
    both = np.empty((2 * n, 2 * n), np.int16)
    own = 3 * wide[1:-1] + 2
    np.add(own, wide[:-2], out=both[0::2])
    np.add(own, wide[2:], out=both[1::2])
    both >>= 2
    return both
