"""Where tissue, lesion and benign changes lie on a slide."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

#: Level-0 pixels along the side of one mask pixel.
MASK_DOWNSAMPLE = 8

Map = NDArray[np.float32]


class Truth(NamedTuple):
    """The true masks of a slide.

    Attributes:
        tissue: True on tissue, shape ``(side / 8, side / 8)``.
        lesion: True on lesion, same shape; always inside the tissue.
        benign: True on benign changes, which resemble a lesion, same shape; inside the tissue and outside the lesion.
    """

    tissue: NDArray[np.bool_]
    lesion: NDArray[np.bool_]
    benign: NDArray[np.bool_]

    @property
    def lesion_fraction(self) -> float:
        """Lesion area as a fraction of the tissue area."""
        return float(self.lesion.sum() / self.tissue.sum())


def lay_out(
    rng: np.random.Generator, side: int, lesion_fraction: float, benign_fraction: float = 0
) -> tuple[Truth, Map]:
    """Place tissue, and lesions and benign changes on fractions of it, on masks of ``side`` pixels.

    Returns:
        The masks, and the opacity of the tissue in [0, 1], shape ``(8 side, 8 side)``, with soft edges.
    """
    pieces = rng.integers(1, 4)
    turn = 2 * np.pi * (rng.random() + np.arange(pieces) / pieces)
    off_centre = 0.04 if pieces == 1 else 0.28
    heights = _draw_hills(rng, side, 0.5 + off_centre * np.stack([np.sin(turn), np.cos(turn)], axis=1))
    tissue = _highest(heights, round(rng.uniform(0.42, 0.58) * side**2))
    lesion = _draw_spots(rng, tissue, round(lesion_fraction * tissue.sum()))
    benign = np.zeros_like(lesion)
    count = round((lesion_fraction + benign_fraction) * tissue.sum()) - int(lesion.sum())
    if count:  # without benign changes no further random numbers are taken, so that the slide stays as it was
        benign = _draw_spots(rng, tissue & ~lesion, count)
    above_edge = zoom(heights - heights[tissue].min(), MASK_DOWNSAMPLE, order=1, mode="nearest", grid_mode=True)
    return Truth(tissue, lesion, benign), np.clip(47 * above_edge + 0.5, 0, 1)


def draw_noise(rng: np.random.Generator, side: int, amplitudes: dict[int, float]) -> Map:
    """Return a sum of smooth random surfaces, shape ``(side, side)``.

    Args:
        rng: Random numbers.
        side: Pixels along the side, a multiple of the largest cell width.
        amplitudes: ``{cell width in pixels, a power of two: amplitude}``.
    """
    width = max(amplitudes)
    surface = np.zeros((side // width, side // width), np.float32)
    while True:
        if amplitude := amplitudes.get(width):
            surface += amplitude * (2 * rng.random(surface.shape, np.float32) - 1)
        if width == 1:
            return surface
        surface = zoom(surface, 2, order=1, mode="nearest", grid_mode=True)
        width //= 2


def _draw_spots(rng: np.random.Generator, ground: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Mark ``count`` pixels of the ground, in ragged patches around 1 to 3 of its pixels."""
    centres = np.argwhere(ground)[rng.integers(ground.sum(), size=rng.integers(1, 4))] / len(ground)
    return _highest(np.where(ground, _draw_hills(rng, len(ground), centres), -np.inf), count)


def _draw_hills(rng: np.random.Generator, side: int, centres: NDArray[np.float64]) -> Map:
    """Return a ragged surface with a hill at each centre ``(row, column)``, in fractions of the side."""
    rows, columns = np.mgrid[:side, :side] / side
    hills = np.max([-np.hypot(rows - row, columns - column) for row, column in centres], axis=0)
    ragged = draw_noise(rng, side, {32: 0.1, 16: 0.08, 8: 0.04, 4: 0.02, 2: 0.01})
    beyond = np.maximum(np.maximum(abs(rows - 0.5), abs(columns - 0.5)) - 0.42, 0)  # keeps the border free
    return np.asarray(hills + ragged - 2 * beyond, np.float32)


def _highest(surface: NDArray[np.floating], count: int) -> NDArray[np.bool_]:
    """Mark the ``count`` highest values of a surface."""
    mask = np.zeros(surface.size, np.bool_)
    mask[np.argsort(-surface, axis=None, kind="stable")[:count]] = True
    return mask.reshape(surface.shape)
