"""Thumbnail → tissue mask."""

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
