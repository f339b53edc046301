"""Cut patches out of a slide: large regions are read once and patches cut from memory."""

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

    Regions of about 2048² pixels hold many patches, so that the file's tiles are decoded once; a patch is cut
    from memory at its exact place and area-resized where the level is finer than the scale. Where a region
    cannot be read, its patches are read one by one, and those that fail are left out.

    Args:
        slide: An open slide.
        plan: Which level to read, from :meth:`Slide.plan`.
        coords: Level-0 ``(x, y)`` of the top left corners, shape ``(N, 2)``.
        patch_size: P, pixels.

    Yields:
        Patches, uint8, shape ``(n, P, P, 3)``, and their coordinates, shape ``(n, 2)``.
    """
    side = plan.footprint / plan.downsample
    per_block = max(1, int(_BLOCK / side))
    blocks = np.floor(coords / (per_block * plan.footprint)).astype(np.int64)
    order = np.lexsort((blocks[:, 0], blocks[:, 1]))
    borders = np.flatnonzero(np.any(np.diff(blocks[order], axis=0), axis=1)) + 1
    for members in np.split(order, borders) if len(order) else []:
        try:
            yield _cut_block(slide, plan, coords[members], patch_size), coords[members]
        except SlideError:
            for member in members:
                try:
                    yield _cut_block(slide, plan, coords[[member]], patch_size), coords[[member]]
                except SlideError as error:
                    logger.warning("left out a patch: %s", error)


def _cut_block(slide: Slide, plan: ReadPlan, coords: np.ndarray, patch_size: int) -> np.ndarray:
    corners = coords / plan.downsample
    side = plan.footprint / plan.downsample
    width, height = slide.level_dimensions[plan.level]
    left, top = np.floor(corners.min(axis=0) + 1e-6).astype(int)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0) + side - 1e-6).astype(int), (width, height))
    region = slide.read_level(plan.level, left, top, right - left, bottom - top)
    patches = np.empty((len(coords), patch_size, patch_size, 3), np.uint8)
    # area means: a whole number of pixels has equal weights, and a fractional one needs a tapered filter
    shrink = Image.Resampling.BOX if (side / patch_size).is_integer() else Image.Resampling.HAMMING
    image = None
    for patch, (x, y) in zip(patches, corners - (left, top), strict=True):
        column, row = round(x), round(y)
        exact = side == patch_size and abs(x - column) < 1e-6 and abs(y - row) < 1e-6
        if exact:
            patch[:] = region[row : row + patch_size, column : column + patch_size]
            continue
        image = Image.fromarray(region) if image is None else image
        box = (x, y, min(x + side, image.width), min(y + side, image.height))
        patch[:] = np.asarray(image.resize((patch_size, patch_size), shrink, box=box))
    return patches
