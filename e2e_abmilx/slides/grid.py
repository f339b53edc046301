"""Grids of patches on the tissue of a slide, at a fine and a coarse scale."""

import math

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.slides.tissue import TissueError

# Fraction of a patch: a narrower strip at the border is left out, and a ratio this close to an integer is rounded.
_SLACK = 0.05

_Starts = NDArray[np.int64]  # of patches along one axis, level-0 pixels


def patch_grid(
    mask: NDArray[np.bool_],
    slide_size: tuple[int, int],
    *,
    footprint: float,
    overlap: float = 0.0,
    min_tissue: float = 0.5,
) -> NDArray[np.int64]:
    """Lay patches over a slide and keep those with enough tissue.

    The lattice starts at (0, 0) with a stride of ``footprint * (1 - overlap)``. Every patch lies inside the slide: the last
    column and the last row, which would extend beyond it, are moved inwards to the border, so that all tissue is covered
    and no pixel is invented; only a strip narrower than a twentieth of a patch is left out. A slide smaller than a patch
    has none.

    Args:
        mask: Tissue of the whole slide, shape ``(h, w)``, at any resolution.
        slide_size: Width and height, level-0 pixels.
        footprint: Side of a patch, level-0 pixels; may be fractional.
        overlap: Fraction of the footprint that neighbours have in common, in [0, 1).
        min_tissue: Smallest fraction of the footprint that is tissue, in [0, 1].

    Returns:
        Top left corners, level-0 ``(x, y)``, shape ``(N, 2)``, row by row.

    Raises:
        TissueError: The footprint, overlap or tissue fraction is out of range.
    """
    _check(footprint, overlap, min_tissue)
    x, y = (_origins(length, footprint, footprint * (1 - overlap)) for length in slide_size)
    return _corners(x, y, _holds_tissue(mask, slide_size, x, y, footprint, min_tissue))


def coarse_grid(
    mask: NDArray[np.bool_],
    slide_size: tuple[int, int],
    fine: NDArray[np.int64],
    *,
    fine_footprint: float,
    footprint: float,
    overlap: float = 0.0,
    min_tissue: float = 0.5,
) -> NDArray[np.int64]:
    """Lay coarse patches over a slide, each centred on the block of fine patches that it covers.

    Twice the footprint covers 2 × 2 fine patches (3 × 3 if they overlap by half), 1.5 times the footprint only one. The
    stride is as many fine patches as fit along the coarse footprint. As in :func:`patch_grid`, patches that would extend
    beyond the slide are moved inwards; only there are they not centred.

    ``mask``, ``slide_size``, ``overlap`` and ``min_tissue`` are those of the fine grid; ``fine`` are its patches, level-0
    ``(x, y)``, shape ``(N, 2)``. ``fine_footprint`` and ``footprint`` are the sides of a fine and of a coarse patch.

    Returns:
        Top left corners, level-0 ``(x, y)``, row by row, of the patches that have enough tissue and cover the centre of at
        least one fine patch.

    Raises:
        TissueError: An argument is out of range, or a coarse patch is smaller than a fine one.
    """
    _check(fine_footprint, overlap, min_tissue)
    if footprint < fine_footprint:
        raise TissueError(
            f"the coarse footprint {footprint:g} is smaller than the fine one, {fine_footprint:g}; give the fine scale first"
        )
    ratio = footprint / fine_footprint
    if abs(ratio / round(ratio) - 1) < _SLACK:
        ratio = round(ratio)  # levels of a pyramid are often only nearly 2 or 4 apart
    fine_stride = fine_footprint * (1 - overlap)
    block = fine_footprint + math.floor((ratio - 1) / (1 - overlap) + 1e-6) * fine_stride
    first, stride = (block - footprint) / 2, math.floor(ratio) * fine_stride
    x, y = (_origins(length, footprint, stride, first) for length in slide_size)
    kept = _holds_tissue(mask, slide_size, x, y, footprint, min_tissue)
    return _corners(x, y, kept & _covers_any(x, y, footprint, fine + fine_footprint / 2))


def _check(footprint: float, overlap: float, min_tissue: float) -> None:
    if not footprint > 0:
        raise TissueError(f"footprint is {footprint}; it must be more than 0 level-0 pixels: check scale and mpp")
    if not 0 <= overlap < 1:
        raise TissueError(f"overlap is {overlap}; it is a fraction of the patch, in [0, 1): 0.5 for half")
    if not 0 <= min_tissue <= 1:
        raise TissueError(f"min_tissue is {min_tissue}; it is a fraction of the patch, in [0, 1]: 0.5 for half")


def _origins(length: int, footprint: float, stride: float, first: float = 0.0) -> _Starts:
    """Return the starts of the patches along one axis, up to the border; the last is moved inside."""
    if footprint > length:
        return np.empty(0, dtype=np.int64)
    count = 1 + max(0, math.ceil((length - footprint * (1 + _SLACK) - first) / stride))
    origins = np.rint(first + stride * np.arange(count)).clip(0, math.floor(length - footprint))
    return np.unique(origins.astype(np.int64))


def _holds_tissue(
    mask: NDArray[np.bool_], slide_size: tuple[int, int], x: _Starts, y: _Starts, footprint: float, min_tissue: float
) -> NDArray[np.bool_]:
    """Return whether the patch at each (y, x) has enough tissue; the fraction is exact, as a square is two intervals."""
    rows = _overlaps(y, footprint, slide_size[1], mask.shape[0])
    columns = _overlaps(x, footprint, slide_size[0], mask.shape[1])
    fraction: NDArray[np.float64] = rows @ mask.astype(np.float64) @ columns.T
    return fraction >= min_tissue - 1e-9  # a sum of rounded parts may be slightly below 1


def _overlaps(origins: _Starts, footprint: float, length: int, pixels: int) -> NDArray[np.float64]:
    """Return the fraction of each patch in each mask pixel along one axis, shape ``(patches, pixels)``."""
    edges = np.linspace(0, length, pixels + 1)
    before = (edges - origins[:, None]).clip(0, footprint)
    return np.diff(before, axis=1) / footprint


def _covers_any(x: _Starts, y: _Starts, footprint: float, points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return whether the patch at each (y, x) covers at least one of the points, which lie on their own lattice."""
    point_x, column = np.unique(points[:, 0], return_inverse=True)
    point_y, row = np.unique(points[:, 1], return_inverse=True)
    present = np.zeros((len(point_y), len(point_x)))
    present[row, column] = 1
    in_columns = (point_x >= x[:, None]) & (point_x <= x[:, None] + footprint)
    in_rows = (point_y >= y[:, None]) & (point_y <= y[:, None] + footprint)
    covered: NDArray[np.bool_] = in_rows @ present @ in_columns.T > 0
    return covered


def _corners(x: _Starts, y: _Starts, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    row, column = np.nonzero(kept)
    return np.stack([x[column], y[row]], axis=1)
