"""Sheets: the patches of a scale as rasters with one cell per patch, so that a viewer draws no polygons.

Letters: N patches of a scale of a slide.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 1.0  # level-0 pixels between a cell and its patch
_SLACK = (
    0.05  # fraction of a patch: as in slides/grid.py, coarse patches may be this much farther apart than their side
)
_LATTICES = 500  # patches that lie on no earlier lattice get a cell each
_LEVELS = 8  # patches at the same place that get a raster each; more get a cell each


class Sheet(NamedTuple):
    """A lattice of equal square cells, one per patch.

    Cell (r, c) covers level 0 from ``x + c * pitch`` to ``x + (c + 1) * pitch``, and from ``y + r * pitch`` to
    ``y + (r + 1) * pitch``.

    Attributes:
        x: Left edge, level-0 pixels.
        y: Upper edge, level-0 pixels.
        pitch: Side of a cell, level-0 pixels.
        patches: Number of the patch in each cell, -1 for none, int32, shape ``(rows, columns)``.
    """

    x: float
    y: float
    pitch: float
    patches: NDArray[np.int32]


def lay_sheets(coords: NDArray[np.integer], footprint: float) -> list[Sheet]:
    """Put each patch into one cell of one sheet.

    Cells are as large as the patches. If patches overlap, cells are as large as the distance between neighbours, and each
    is the centre of its patch. A cell is at most one level-0 pixel away from there, although coordinates are rounded.

    A regular grid is one sheet. Patches off the grid get further sheets, to be drawn over it: those that were moved
    inwards at the border, and those of contours with an origin of their own. Empty space is not stored: a sheet of n
    patches has at most 32 n + 256 cells. Patches without any regular arrangement get a sheet each.

    Args:
        coords: Level-0 ``(x, y)`` of each patch's top left corner, shape ``(N, 2)``.
        footprint: Side of a patch, level-0 pixels; may be fractional.

    Returns:
        Sheets, those of the lattice with the most patches first.
    """
    if not len(coords):
        return []
    pitch = _pitch(np.asarray(coords, np.int64), footprint)
    corners = np.asarray(coords, np.float64) + (footprint - pitch) / 2
    left = np.ones(len(coords), bool)
    sheets: list[Sheet] = []
    for origin, members in _lattices(corners, pitch, left):
        cells = np.rint((corners[members] - origin) / pitch).astype(np.int64)
        level = _occurrence(cells)
        for number in range(min(_LEVELS, int(level.max()) + 1)):
            chosen = level == number
            sheets += _rasters(members[chosen], cells[chosen], origin, pitch)
        left[members[level >= _LEVELS]] = True
    singles = np.flatnonzero(left)
    cells_of_one = singles.astype(np.int32).reshape(-1, 1, 1)
    places = corners[singles].tolist()
    return sheets + [Sheet(x, y, pitch, cell) for (x, y), cell in zip(places, cells_of_one, strict=True)]


def _pitch(coords: NDArray[np.int64], footprint: float) -> float:
    """Return the side of the cells: the footprint, or the distance of neighbours where that is another."""
    stride = _stride(coords)
    extent = float(np.ptp(coords, axis=0).max())
    if stride is None or abs(stride - footprint) * extent / stride <= _TOLERANCE:
        return float(footprint)
    return stride / max(
        1, math.ceil(stride / footprint - _SLACK)
    )  # patches farther apart have empty cells between them


def _stride(coords: NDArray[np.int64]) -> float | None:
    """Return the distance of neighbours in a row or column; None unless most have the same, up to rounding."""
    steps, spans = (np.concatenate(both) for both in zip(*(_distances(coords, axis) for axis in (0, 1)), strict=True))
    if len(steps) < len(coords) / 2:
        return None
    sizes, counts = np.unique(steps, return_counts=True)
    next_to = np.searchsorted(sizes, sizes + 1).clip(max=len(sizes) - 1)
    pairs = counts + np.where(sizes[next_to] == sizes + 1, counts[next_to], 0)  # rounding makes two steps of one
    size = sizes[pairs.argmax()]
    chosen = steps[(steps == size) | (steps == size + 1)]
    return _refine(float(chosen.mean()), spans) if len(chosen) >= len(steps) / 2 else None


def _distances(coords: NDArray[np.int64], axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distances along an axis of patches in one line: from one to the next, and from the first to each."""
    order = np.lexsort((coords[:, axis], coords[:, 1 - axis]))
    line, along = coords[order, 1 - axis], coords[order, axis]
    starts = np.flatnonzero(np.diff(line, prepend=line[0] - 1))
    first = np.repeat(along[starts], np.diff(starts, append=len(line)))
    step = np.diff(along)[np.diff(line) == 0]
    return step[step > 0], (along - first)[along > first]


def _refine(stride: float, spans: NDArray[np.int64]) -> float:
    """Fit the stride to spans that are whole multiples of it up to rounding, from short to long ones."""
    reach = 1.0
    while True:
        times = np.rint(spans / stride)
        fits = (times > 0) & (times <= reach) & (np.abs(spans - times * stride) <= _TOLERANCE)
        if not fits.any():
            return stride
        stride = float((times[fits] * spans[fits]).sum() / (times[fits] ** 2).sum())
        longest = float(times[fits].max())
        if 2 * longest <= reach or longest >= times.max():
            return stride
        reach = 2 * max(reach, longest)


def _lattices(
    corners: NDArray[np.float64], pitch: float, left: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Yield lattices, the largest first: a corner of a cell, and the patches at most one pixel away from the cells.

    Patches that are yielded are removed from ``left``. They are found by their remainders modulo the pitch, in bins of
    about a pixel: those of a lattice are the same up to rounding.
    """
    bins = max(1, round(pitch))
    remainder = np.mod(corners, pitch)
    number = np.floor(remainder * (bins / pitch)).astype(np.int64).clip(0, bins - 1)
    key = number[:, 1] * bins + number[:, 0]
    order = np.argsort(key, kind="stable")
    keys, starts, counts = np.unique(key[order], return_index=True, return_counts=True)
    stops = starts + counts
    around = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 2)
    for seed in np.argsort(-counts, kind="stable")[:_LATTICES]:
        own = order[starts[seed] : stops[seed]]
        own = own[left[own]]
        if not len(own):
            continue
        origin = np.median(remainder[own], axis=0)
        near = (number[own[0]] + around) % bins
        _, found, _ = np.intersect1d(keys, near[:, 1] * bins + near[:, 0], return_indices=True)
        members = np.concatenate([order[starts[one] : stops[one]] for one in found])
        offset = remainder[members] - origin
        offset -= pitch * np.rint(offset / pitch)
        members = members[left[members] & (np.abs(offset) <= _TOLERANCE).all(axis=1)]
        left[members] = False
        yield origin, members


def _occurrence(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many earlier rows are equal to each, shape ``(n,)``."""
    order = np.lexsort((cells[:, 0], cells[:, 1]))
    new = np.ones(len(cells), bool)
    new[1:] = (np.diff(cells[order], axis=0) != 0).any(axis=1)
    starts = np.flatnonzero(new)
    level = np.empty(len(cells), np.int64)
    level[order] = np.arange(len(cells)) - np.repeat(starts, np.diff(starts, append=len(cells)))
    return level


def _rasters(
    members: NDArray[np.int64], cells: NDArray[np.int64], origin: NDArray[np.float64], pitch: float
) -> Iterator[Sheet]:
    """Yield rasters of patches in different cells ``(column, row)``, halved until most space is not empty."""
    first = cells.min(axis=0)
    columns, rows = (np.ptp(cells, axis=0) + 1).tolist()
    if rows * columns <= 32 * len(members) + 256:
        patches = np.full((rows, columns), -1, np.int32)
        patches[cells[:, 1] - first[1], cells[:, 0] - first[0]] = members
        x, y = (origin + first * pitch).tolist()
        yield Sheet(x, y, pitch, patches)
        return
    axis = int(rows > columns)
    lower = cells[:, axis] < first[axis] + max(columns, rows) // 2
    for half in (lower, ~lower):
        yield from _rasters(members[half], cells[half], origin, pitch)
