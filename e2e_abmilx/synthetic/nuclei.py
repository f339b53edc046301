"""Nuclei, which tell a lesion from normal tissue."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from e2e_abmilx.synthetic.truth import MASK_DOWNSAMPLE, Truth

_SHAPES = 64  # different nuclei of one kind on a slide


class _Nuclei(NamedTuple):
    """What the nuclei of one kind of tissue look like.

    Attributes:
        diameter: Smallest and largest, in µm.
        elongation: Largest ratio of the two axes.
        waviness: Of the outline, as a share of the radius.
        interior: Darkness inside as a share of the rim's; low is a vesicular nucleus.
        nucleolus: Darkness of the nucleolus as a share of the rim's.
    """

    diameter: tuple[float, float]
    elongation: float
    waviness: float
    interior: float
    nucleolus: float


_NORMAL = _Nuclei(diameter=(6.0, 7.0), elongation=2.2, waviness=0.06, interior=0.85, nucleolus=0.0)
_LESION = _Nuclei(diameter=(10.0, 14.0), elongation=1.5, waviness=0.28, interior=0.42, nucleolus=1.0)


def draw_nuclei(rng: np.random.Generator, truth: Truth, mpp: float) -> NDArray[np.uint8]:
    """Share of each level-0 pixel that is nucleus, 0-255, of one mean on normal tissue and on lesion."""
    side = MASK_DOWNSAMPLE * len(truth.tissue)
    mean_share = 0.14 + 0.04 * rng.random()
    margin = round(_LESION.diameter[1] / mpp)
    canvas = np.zeros((side + 2 * margin, side + 2 * margin), np.uint16)
    for kind, region in ((_NORMAL, truth.tissue & ~truth.lesion), (_LESION, truth.lesion)):
        shapes = _shape_nuclei(rng, kind, mpp)
        size = shapes.shape[1]
        spacing = float(np.sqrt(shapes.sum() / (255 * _SHAPES * mean_share)))
        centres = _scatter(rng, side, spacing)
        centres = centres[region[tuple(centres.T // MASK_DOWNSAMPLE)]]
        corners = (centres + margin - size // 2).tolist()
        for (top, left), shape in zip(
            corners, rng.integers(_SHAPES, size=len(corners)).tolist(), strict=True
        ):
            canvas[top : top + size, left : left + size] += shapes[shape]
    return np.minimum(canvas[margin:-margin, margin:-margin], 255).astype(np.uint8)


def _scatter(rng: np.random.Generator, side: int, spacing: float) -> NDArray[np.int64]:
    """Points ``(row, column)`` on a square, shape ``(n, 2)``: one in every ``spacing``² pixels, seldom too close."""
    n = int(side / spacing) + 2
    rows, columns = np.mgrid[:n, :n] + 0.7 * (rng.random((2, n, n)) - 0.5)
    columns[1::2] -= 0.5  # every other row is shifted, as in a honeycomb
    points = (spacing * np.stack([rows.ravel(), columns.ravel()], axis=1)).astype(np.int64)
    return points[((points >= 0) & (points < side)).all(axis=1)]


def _shape_nuclei(rng: np.random.Generator, kind: _Nuclei, mpp: float) -> NDArray[np.uint8]:
    """Draw 64 nuclei of a kind, shape ``(64, size, size)``: the share of each pixel that is nucleus, 0-255."""

    def draw(low: float, high: float) -> NDArray[np.float64]:
        return low + (high - low) * rng.random((_SHAPES, 1, 1))

    radius = draw(*kind.diameter) / 2 / mpp
    size = 2 * round(0.75 * kind.diameter[1] / mpp) + 1
    rows, columns = np.mgrid[:size, :size] - size // 2
    turn, stretch = draw(0, np.pi), np.sqrt(draw(1, kind.elongation))
    along = (columns * np.cos(turn) + rows * np.sin(turn)) / stretch
    across = (rows * np.cos(turn) - columns * np.sin(turn)) * stretch
    angle = np.arctan2(across, along)
    waves = sum(draw(0, 1) / lobes * np.cos(lobes * angle + draw(0, 2 * np.pi)) for lobes in (2, 3, 4, 5))
    depth = radius * (1 + kind.waviness * waves) - np.hypot(along, across)  # pixels below the outline

    rim = np.clip(1.3 - depth * mpp / 1.2, 0, 1)
    clumps = gaussian_filter(rng.random((_SHAPES, size, size)) - 0.5, sigma=(0, 0.5 / mpp, 0.5 / mpp))
    chromatin = kind.interior + (1 - kind.interior) * rim + 1.6 * clumps
    turn, off_centre = draw(0, 2 * np.pi), draw(0, 0.4) * radius
    away = np.hypot(columns - off_centre * np.cos(turn), rows - off_centre * np.sin(turn))
    nucleolus = kind.nucleolus * np.clip(draw(1.0, 1.6) / mpp - away + 0.5, 0, 1)
    darkness: NDArray[np.float64] = (
        draw(0.7, 1) * np.clip(depth + 0.5, 0, 1) * np.maximum(chromatin, nucleolus)
    )
    return np.rint(255 * np.clip(darkness, 0, 1)).astype(np.uint8)
