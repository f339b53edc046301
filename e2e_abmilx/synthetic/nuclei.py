"""Nuclei: small and dark in normal tissue; large, irregular and pale with a nucleolus in a lesion.

The nuclei of benign changes are reactive: they have gone part of the way from normal to those of a lesion.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from e2e_abmilx.synthetic.truth import MASK_DOWNSAMPLE, Map, Truth

_SHAPES = 64  # different nuclei of one kind on a slide


class _Kind(NamedTuple):
    """Appearance of the nuclei in one kind of tissue."""

    diameter: tuple[float, float]  # smallest and largest, µm
    elongation: float  # largest ratio of the two axes
    waviness: float  # of the outline, as a fraction of the radius
    interior: float  # darkness inside, as a fraction of that of the rim
    nucleolus: float  # darkness of the nucleolus, as a fraction of that of the rim


_NORMAL = _Kind(diameter=(6.0, 7.0), elongation=2.2, waviness=0.06, interior=0.85, nucleolus=0.0)
_LESION = _Kind(diameter=(10.0, 14.0), elongation=1.5, waviness=0.28, interior=0.42, nucleolus=1.0)
_REACTIVE = (0.0, 0.65)  # how far from normal to lesion, least and most; one value on a slide


def draw_nuclei(rng: np.random.Generator, truth: Truth, mpp: float) -> Map:
    """Return how far each level-0 pixel is nucleus, in [0, 1], with the same mean on all tissue."""
    side = MASK_DOWNSAMPLE * len(truth.tissue)
    mean = rng.uniform(0.14, 0.18)
    margin = round(_LESION.diameter[1] / mpp)
    canvas = np.zeros((side + 2 * margin, side + 2 * margin), np.float32)
    regions = [(_NORMAL, truth.tissue & ~truth.lesion & ~truth.benign), (_LESION, truth.lesion)]
    if truth.benign.any():
        regions.append((_reactive(rng.uniform(*_REACTIVE)), truth.benign))
    for kind, region in regions:
        shapes = _draw_shapes(rng, kind, mpp)
        size = shapes.shape[1]
        centres = _scatter(rng, side, spacing=np.sqrt(shapes.sum() / (_SHAPES * mean)))
        centres = centres[region[tuple(centres.T // MASK_DOWNSAMPLE)]]
        for top, left in centres + margin - size // 2:
            canvas[top : top + size, left : left + size] += shapes[rng.integers(_SHAPES)]
    return np.minimum(canvas[margin:-margin, margin:-margin], 1)


def _reactive(degree: float) -> _Kind:
    """Return nuclei between normal ones, degree 0, and those of a lesion, degree 1."""
    low, high = (
        normal + degree * (lesion - normal) for normal, lesion in zip(_NORMAL.diameter, _LESION.diameter, strict=True)
    )
    others = (normal + degree * (lesion - normal) for normal, lesion in zip(_NORMAL[1:], _LESION[1:], strict=True))
    return _Kind((low, high), *others)


def _scatter(rng: np.random.Generator, side: int, spacing: float) -> NDArray[np.int64]:
    """Scatter points ``(row, column)``, shape ``(n, 2)``, one per ``spacing``² pixels and seldom too close."""
    n = int(side / spacing) + 2
    rows, columns = np.mgrid[:n, :n] + rng.uniform(-0.35, 0.35, (2, n, n))
    columns[1::2] -= 0.5  # every other row is shifted, as in a honeycomb
    points = (spacing * np.stack([rows.ravel(), columns.ravel()], axis=1)).astype(np.int64)
    return points[((points >= 0) & (points < side)).all(axis=1)]


def _draw_shapes(rng: np.random.Generator, kind: _Kind, mpp: float) -> Map:
    """Draw 64 nuclei of one kind, shape ``(64, size, size)``, in [0, 1]."""

    def draw(low: float, high: float) -> NDArray[np.float64]:
        return rng.uniform(low, high, (_SHAPES, 1, 1))

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
    clumps = gaussian_filter(rng.uniform(-0.5, 0.5, depth.shape), sigma=(0, 0.5 / mpp, 0.5 / mpp))
    chromatin = kind.interior + (1 - kind.interior) * rim + 1.6 * clumps
    away = np.hypot(columns - draw(-0.3, 0.3) * radius, rows - draw(-0.3, 0.3) * radius)
    nucleolus = kind.nucleolus * np.clip(draw(1.0, 1.6) / mpp - away + 0.5, 0, 1)
    darkness = draw(0.7, 1) * np.clip(depth + 0.5, 0, 1) * np.maximum(chromatin, nucleolus)
    return np.asarray(np.clip(darkness, 0, 1), np.float32)
