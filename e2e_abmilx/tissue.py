"""Where the tissue is and which patches cover it: thumbnail → tissue mask → patch grid, coordinates only."""

import math

import numpy as np
from numpy.typing import NDArray
from skimage import filters, measure

from e2e_abmilx.errors import InputError

_USUAL_MPP = 10.0  # of a thumbnail, where the slide does not say

# Optical densities, chosen on slides of six laboratories, where stained tissue mostly lies between 0.05 and 0.4.
_STAIN = 0.015  # stain above this is tissue: glass, shadows and bubbles stay below 0.01
_PEN = 0.04  # red absorption beyond that of the bluest nuclei
_DARK = 0.2  # green absorption of a thing: without stain it is ink or dirt
_WARM = 0.03  # green absorption beyond red, of eosin with an orange tint
_RED_INK = 0.5  # green absorption: what is as warm and darker is red ink

_SLACK = (
    0.05  # of a patch: a narrower strip at the border is left, and ratios this close to whole ones are whole
)


class TissueError(InputError):
    """A thumbnail or a grid that makes no sense."""


def tissue_mask(thumbnail: NDArray[np.uint8], *, mpp: float | None) -> NDArray[np.bool_]:
    """Find the stained tissue of an H&E thumbnail.

    Haematoxylin and eosin absorb green light most and blue light much less. What else lies on a slide does not:
    glass, shadows, bubbles, dust and black ink absorb all colours alike, red ink absorbs blue like green, and blue
    and green ink absorb red most. Comparing optical densities, ``-log10(light / light of the glass)``, therefore
    tells them apart, whatever the strength of the staining:

    - tissue: ``0.8 green - blue`` is positive, or, where the eosin is orange, ``green - red`` is and green is not
      as strong as in red ink;
    - ink and dirt: red exceeds ``1.15 green``, or green is strong and neither holds. Their blurred
      rim, about 70 µm, goes with them.

    Tissue narrower than about 70 µm that hangs on nothing wider is dropped; holes as narrow are filled.

    What it cannot do: tell folds, blood, tissue seen through a bubble or blurred tissue from good tissue; find fat
    (the white inside of its cells), very pale mucus, or tissue under opaque ink; refuse ink of a pink or purple that
    H&E has too; see a brown (DAB) stain, which counts as dirt where it is strong.

    Args:
        thumbnail: RGB pixels of the whole slide, shape ``(h, w, 3)``.
        mpp: µm per pixel of the thumbnail, at best 4 to 40; None where unknown, which is taken as 10. Where 20 µm
            are more than a hundredth of the thumbnail's shorter side, as in a small field at high power, that
            hundredth takes their place in every length above.

    Returns:
        Shape ``(h, w)``, True where there is tissue.

    Raises:
        TissueError: Not an RGB image of 8 bits, or a resolution that is not positive.
    """
    if thumbnail.dtype != np.uint8 or thumbnail.ndim != 3 or thumbnail.shape[2] != 3:
        raise TissueError(
            f"the thumbnail is {thumbnail.dtype} of shape {thumbnail.shape}; it must be uint8 RGB of shape (h, w, 3):"
            " convert it first"
        )
    if mpp is not None and not mpp > 0:
        raise TissueError(f"the thumbnail's mpp is {mpp}; µm per pixel are positive: give None where unknown")
    grain = min(20 / (mpp or _USUAL_MPP), min(thumbnail.shape[:2]) / 100)  # 20 µm in pixels
    red, green, blue = _densities(thumbnail, grain)
    stain = 0.8 * green - blue
    warm = (green - red > _WARM) & (blue < 1.1 * green) & (green < _RED_INK)
    pen = red - 1.15 * green > _PEN
    dark = (green > _DARK) & (stain < 0) & ~warm
    foreign = _share_around(pen | dark, 2 * grain) > 0.1  # a line of it counts, a grain of dust does not
    tissue = _without_specks(((stain > _STAIN) | warm) & ~foreign, 1.5 * grain)
    return ~_without_specks(~tissue, 1.5 * grain)


def patch_grid(
    mask: NDArray[np.bool_],
    slide_size: tuple[int, int],
    *,
    footprint: float,
    overlap: float = 0.0,
    min_tissue: float = 0.5,
) -> NDArray[np.int64]:
    """Lay patches over a slide and keep those with enough tissue.

    The lattice starts at (0, 0) and has a patch every ``footprint * (1 - overlap)``. Every patch lies inside the
    slide: the last column and the last row, which would overhang, are moved inwards until they end at the border,
    so that all tissue is covered and no pixel is made up; only a strip narrower than a twentieth of a patch is left
    out. A slide smaller than a patch has none.

    Args:
        mask: Tissue of the whole slide, shape ``(h, w)``, at any resolution.
        slide_size: Width and height, level-0 pixels.
        footprint: Side of the square that a patch covers, level-0 pixels; may be fractional.
        overlap: Share of the footprint that neighbours have in common, in [0, 1).
        min_tissue: Smallest share of the footprint that is tissue, in [0, 1].

    Returns:
        Top left corners, level-0 ``(x, y)``, shape ``(N, 2)``, row by row.

    Raises:
        TissueError: A footprint, overlap or tissue share out of range.
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

    Twice the footprint covers 2 × 2 fine patches (3 × 3 where they overlap by half), 1.5 times the footprint only
    one, and the next coarse patch is as many fine patches further as its footprint holds. As in `patch_grid`, what
    would overhang the slide is moved inwards, which is the one place where centres differ.

    Args:
        mask: Tissue of the whole slide, shape ``(h, w)``: the mask that the fine grid was made with.
        slide_size: Width and height, level-0 pixels.
        fine: The fine patches that were kept, level-0 ``(x, y)``, shape ``(N, 2)``.
        fine_footprint: Side of a fine patch, level-0 pixels.
        footprint: Side of a coarse patch, level-0 pixels.
        overlap: Share of the footprint that neighbours have in common, in [0, 1); the fine grid's.
        min_tissue: Smallest share of the footprint that is tissue, in [0, 1].

    Returns:
        Top left corners, level-0 ``(x, y)``, row by row, of the patches with enough tissue that cover the centre
        of at least one of the fine patches.

    Raises:
        TissueError: A footprint, overlap or tissue share out of range, or a coarse patch smaller than a fine one.
    """
    _check(fine_footprint, overlap, min_tissue)
    if footprint < fine_footprint:
        raise TissueError(
            f"the coarse footprint {footprint:g} is smaller than the fine one, {fine_footprint:g}; give the fine first"
        )
    ratio = footprint / fine_footprint
    if abs(ratio / round(ratio) - 1) < _SLACK:
        ratio = round(ratio)  # pyramid levels are often only nearly 2 or 4 apart
    fine_stride = fine_footprint * (1 - overlap)
    block = fine_footprint + math.floor((ratio - 1) / (1 - overlap) + 1e-6) * fine_stride
    first, stride = (block - footprint) / 2, math.floor(ratio) * fine_stride
    x, y = (_origins(length, footprint, stride, first) for length in slide_size)
    kept = _holds_tissue(mask, slide_size, x, y, footprint, min_tissue)
    return _corners(x, y, kept & _covers_any(x, y, footprint, fine + fine_footprint / 2))


def _check(footprint: float, overlap: float, min_tissue: float) -> None:
    if not footprint > 0:
        raise TissueError(
            f"footprint is {footprint}; a patch covers more than 0 level-0 pixels: check scale and mpp"
        )
    if not 0 <= overlap < 1:
        raise TissueError(f"overlap is {overlap}; it is a share of the patch, in [0, 1): 0.5 for half")
    if not 0 <= min_tissue <= 1:
        raise TissueError(f"min_tissue is {min_tissue}; it is a share of the patch, in [0, 1]: 0.5 for half")


def _densities(thumbnail: NDArray[np.uint8], grain: float) -> NDArray[np.float32]:
    """Optical densities of red, green and blue, shape (3, h, w).

    Light is averaged before the logarithm, as a lens does, so that thin dark lines count for little.
    """
    planes = np.moveaxis(thumbnail, -1, 0).astype(np.float32)
    light = np.stack([filters.gaussian(plane, grain) for plane in planes]) + 1
    lightest = np.percentile(light[:, ::4, ::4], 99, axis=(1, 2), keepdims=True).astype(np.float32)
    glass = np.maximum(
        lightest, 0.93 * max(150, lightest.max())
    )  # a full field has none: it is light and colourless
    densities: NDArray[np.float32] = -np.log10(light / glass)
    return densities


def _share_around(mask: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    share: NDArray[np.float32] = filters.gaussian(mask.astype(np.float32), sigma, truncate=3)
    return share


def _without_specks(mask: NDArray[np.bool_], sigma: float) -> NDArray[np.bool_]:
    """Keep the regions in which a disc of radius 1.7 sigma fits, or a band 2.3 sigma wide."""
    regions = measure.label(mask, connectivity=1)
    kept = np.zeros(regions.max() + 1, dtype=np.bool_)
    kept[regions[mask & (_share_around(mask, sigma) > 0.75)]] = True
    large: NDArray[np.bool_] = kept[regions]
    return large


def _origins(length: int, footprint: float, stride: float, first: float = 0.0) -> NDArray[np.int64]:
    """Where patches start along one axis: as many as reach the border, moved inside."""
    if footprint > length:
        return np.empty(0, dtype=np.int64)
    count = 1 + max(0, math.ceil((length - footprint * (1 + _SLACK) - first) / stride))
    origins = np.rint(first + stride * np.arange(count)).clip(0, math.floor(length - footprint))
    return np.unique(origins.astype(np.int64))


def _holds_tissue(
    mask: NDArray[np.bool_],
    slide_size: tuple[int, int],
    x: NDArray[np.int64],
    y: NDArray[np.int64],
    footprint: float,
    min_tissue: float,
) -> NDArray[np.bool_]:
    """Whether the patch at every (y, x) is tissue enough; its share is exact, a square being two intervals."""
    rows = _overlaps(y, footprint, slide_size[1], mask.shape[0])
    columns = _overlaps(x, footprint, slide_size[0], mask.shape[1])
    share: NDArray[np.float64] = rows @ mask.astype(np.float64) @ columns.T
    return share >= min_tissue - 1e-9  # sums of rounded parts may miss 1 by a little


def _overlaps(origins: NDArray[np.int64], footprint: float, length: int, pixels: int) -> NDArray[np.float64]:
    """Share of each patch in each mask pixel along one axis, shape (patches, pixels)."""
    edges = np.linspace(0, length, pixels + 1)
    before = (edges - origins[:, None]).clip(0, footprint)
    return np.diff(before, axis=1) / footprint


def _covers_any(
    x: NDArray[np.int64], y: NDArray[np.int64], footprint: float, points: NDArray[np.floating]
) -> NDArray[np.bool_]:
    """Whether the patch at every (y, x) covers at least one of the points, which lie on a lattice of their own."""
    point_x, column = np.unique(points[:, 0], return_inverse=True)
    point_y, row = np.unique(points[:, 1], return_inverse=True)
    there = np.zeros((len(point_y), len(point_x)))
    there[row, column] = 1
    in_columns = (point_x >= x[:, None]) & (point_x <= x[:, None] + footprint)
    in_rows = (point_y >= y[:, None]) & (point_y <= y[:, None] + footprint)
    covered: NDArray[np.bool_] = in_rows @ there @ in_columns.T > 0
    return covered


def _corners(x: NDArray[np.int64], y: NDArray[np.int64], kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    row, column = np.nonzero(kept)
    return np.stack([x[column], y[row]], axis=1)
