"""Patches cut out of a slide: large regions are read once and patches are cut from memory."""

import contextlib
import logging
from collections.abc import Iterator

import numpy as np
from PIL import Image

from e2e_abmilx.slides import ReadPlan, Slide, SlideError

logger = logging.getLogger(__name__)

_BLOCK = 2048  # pixels along the side of a region that is read at once and cut into patches


def cut_patches(
    slide: Slide, plan: ReadPlan, coords: np.ndarray, patch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read regions of a slide and cut them into patches.

    Regions of about 2048² pixels hold many patches, so that each tile of the file is decoded once. A patch is cut
    from memory at its exact position, within half a level-0 pixel, and area-resized if the level is finer than the
    scale. If a region cannot be read, its patches are read one by one, and those that fail are left out. ``coords``
    are level-0 ``(x, y)`` of the top left corners, shape ``(N, 2)``; ``patch_size`` is P, pixels.

    Yields:
        Patches, uint8, shape ``(n, P, P, 3)``, and their coordinates, shape ``(n, 2)``; row by row of regions.
    """
    cutter = _Cutter(slide, plan, patch_size)
    yield from map(cutter.cut_readable, cutter.split(coords))


def cut_again(
    slide: Slide, plan: ReadPlan, coords: np.ndarray, indices: np.ndarray, patch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Cut a few patches again, each alone, into the same pixels as :func:`cut_patches` cuts from all ``coords``.

    Yields:
        An index, and its patch, uint8, shape ``(P, P, 3)``; nothing for a patch that cannot be read.
    """
    cutter = _Cutter(slide, plan, patch_size)
    wanted = {tuple(coords[index].tolist()): int(index) for index in indices}
    for block in cutter.split(coords):
        for corner in block:
            if (index := wanted.pop(tuple(corner.tolist()), None)) is not None:
                with contextlib.suppress(SlideError):
                    yield index, cutter.cut_among(corner, block)


class _Cutter:
    """Cut patches of one scale; lengths and positions are in pixels of the level, except ``coords``."""

    def __init__(self, slide: Slide, plan: ReadPlan, patch_size: int) -> None:
        self._slide = slide
        self._plan = plan
        self._patch_size = patch_size
        self._side = plan.footprint / plan.downsample
        self._ratio = self._side / patch_size
        self._is_whole = abs(self._ratio - round(self._ratio)) < 1e-6

    def split(self, coords: np.ndarray) -> Iterator[np.ndarray]:
        """Split coordinates into those read together: of one block, and of one offset if squares are averaged."""
        corners = self._corners(coords)
        blocks = np.floor((corners + 0.5) / (max(1, int(_BLOCK / self._side)) * self._side))
        offsets = corners % round(self._ratio) if self._is_whole else np.zeros_like(corners)
        keys = np.hstack([blocks[:, ::-1], offsets])
        _, numbers, sizes = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        order = np.argsort(numbers, kind="stable")
        return (coords[members] for members in np.split(order, np.cumsum(sizes)[:-1]) if len(members))

    def cut_readable(self, coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the patches that can be read, and their coordinates."""
        try:
            return self._cut(coords), coords
        except SlideError as error:
            reason = error
        patches = np.empty((len(coords), self._patch_size, self._patch_size, 3), np.uint8)
        readable = np.zeros(len(coords), bool)
        for index in range(len(coords)):
            try:
                patches[index] = self._cut(coords[index : index + 1])[0]
                readable[index] = True
            except SlideError as error:
                reason = error
        if not readable.all():
            logger.warning("left out %d of %d patches: %s", (~readable).sum(), len(coords), reason)
        return patches[readable], coords[readable]

    def cut_among(self, corner: np.ndarray, block: np.ndarray) -> np.ndarray:
        """Cut one patch, averaging the same squares of pixels as when it is cut with its block."""
        (patch,) = self._cut(corner[None], np.floor(self._corners(block).min(axis=0)).astype(int))
        return np.asarray(patch)

    def _cut(self, coords: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """Cut the patches of one region, averaging the squares of pixels that a region from ``start`` would have."""
        corners = self._corners(coords)
        limits = self._slide.level_dimensions[self._plan.level]
        ends = np.minimum(corners + self._side, limits)
        left, top = np.floor(corners.min(axis=0)).astype(int)
        right, bottom = np.minimum(np.ceil(ends.max(axis=0) - 1e-6), limits).astype(int)
        is_exact = self._is_whole and not (corners % 1).any() and (ends - corners > self._side - 1e-6).all()
        # Averaging squares is cheap, and for a whole ratio it gives the final patch. Otherwise the filter comes
        # last: squares of at most half the ratio change its result by less than JPEG does.
        shrink = round(self._ratio) if is_exact else max(1, int(self._ratio / 2))
        if start is not None:
            left, top = np.array([left, top]) - (np.array([left, top]) - start) % shrink
        box = (int(left), int(top), int(right - left), int(bottom - top))
        region = self._slide.read_level(self._plan.level, *box, shrink=shrink)
        corners, ends = (corners - (left, top)) / shrink, (ends - (left, top)) / shrink
        size = self._patch_size
        if is_exact:
            return np.stack([region[y : y + size, x : x + size] for x, y in corners.astype(int)])
        image, boxes = Image.fromarray(region), map(tuple, np.hstack([corners, ends]).tolist())
        return np.stack([np.asarray(image.resize((size, size), Image.Resampling.HAMMING, box=box)) for box in boxes])

    def _corners(self, coords: np.ndarray) -> np.ndarray:
        """Return positions in the level, moved onto the nearest pixel if the rounding of coords allows it."""
        corners = coords / self._plan.downsample
        nearest = np.rint(corners)
        return np.where(np.abs(corners - nearest) * self._plan.downsample <= 0.5, nearest, corners)
