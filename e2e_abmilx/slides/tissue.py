"""Tissue mask of a thumbnail."""

import numpy as np
from numpy.typing import NDArray
from skimage import filters, measure

from e2e_abmilx.errors import InputError

_USUAL_MPP = 10.0  # of a thumbnail, if the slide does not state its resolution

# Thresholds of optical density, chosen on slides of six laboratories; stained tissue mostly has 0.05 to 0.4.
_STAIN = 0.015  # more stain is tissue; glass, shadows and bubbles stay below 0.01
_PEN = 0.04  # red absorption beyond that of the bluest nuclei
_DARK = 0.2  # green absorption; an object without stain above it is ink or dirt
_WARM = 0.03  # green absorption beyond red of eosin with an orange tint
_RED_INK = 0.5  # green absorption; a warm colour above it is red ink


class TissueError(InputError):
    """A thumbnail or a grid that cannot be used."""


def tissue_mask(thumbnail: NDArray[np.uint8], *, mpp: float | None) -> NDArray[np.bool_]:
    """Find the stained tissue of an H&E thumbnail.

    Haematoxylin and eosin absorb green light most and blue light much less. Other things on a slide do not: glass,
    shadows, bubbles, dust and black ink absorb all colours alike, red ink absorbs blue like green, and blue and green ink
    absorb red most. Optical densities, ``-log10(light / light of the glass)``, therefore separate them, however strong
    the stain is:

    - tissue: ``0.8 green - blue`` is positive, or, for orange eosin, ``green - red`` is and green is weaker than in red
      ink;
    - ink and dirt: red exceeds ``1.15 green``, or green is strong and neither condition of tissue holds. Their blurred
      rim of about 70 µm is excluded too.

    Tissue narrower than about 70 µm that is attached to nothing wider is dropped; holes as narrow are filled.

    Limits: folds, blood, tissue under a bubble and blurred tissue count as tissue; fat (the white inside of its cells),
    very pale mucus and tissue under opaque ink are missed; ink in a pink or purple of H&E is not excluded; strong brown
    (DAB) stain counts as dirt.

    Args:
        thumbnail: RGB pixels of the whole slide, shape ``(h, w, 3)``.
        mpp: µm per pixel of the thumbnail, ideally 4 to 40; None if unknown, for which 10 is assumed. The lengths above
            are multiples of 20 µm, or of a hundredth of the thumbnail's shorter side if that is less, as in a small field
            at high power.

    Returns:
        The mask, shape ``(h, w)``, True on tissue.

    Raises:
        TissueError: The thumbnail is not RGB with 8 bits, or ``mpp`` is not positive.
    """
    if thumbnail.dtype != np.uint8 or thumbnail.ndim != 3 or thumbnail.shape[2] != 3:
        raise TissueError(
            f"the thumbnail is {thumbnail.dtype} of shape {thumbnail.shape}; it must be uint8 RGB of shape (h, w, 3):"
            " convert it first"
        )
    if mpp is not None and not mpp > 0:
        raise TissueError(
            f"the thumbnail's mpp is {mpp}; it must be a positive number of µm per pixel: give None if unknown"
        )
    grain = min(20 / (mpp or _USUAL_MPP), min(thumbnail.shape[:2]) / 100)  # 20 µm in pixels
    red, green, blue = _densities(thumbnail, grain)
    stain = 0.8 * green - blue
    warm = (green - red > _WARM) & (blue < 1.1 * green) & (green < _RED_INK)
    pen = red - 1.15 * green > _PEN
    dark = (green > _DARK) & (stain < 0) & ~warm
    foreign = _fraction_around(pen | dark, 2 * grain) > 0.1  # true of a line, but not of a grain of dust
    tissue = _without_specks(((stain > _STAIN) | warm) & ~foreign, 1.5 * grain)
    return ~_without_specks(~tissue, 1.5 * grain)


def _fraction_around(mask: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    fraction: NDArray[np.float32] = filters.gaussian(mask.astype(np.float32), sigma, truncate=3)
    return fraction


def _without_specks(mask: NDArray[np.bool_], sigma: float) -> NDArray[np.bool_]:
    """Keep the regions that contain a disc of radius 1.7 sigma or a band 2.3 sigma wide."""
    regions = measure.label(mask, connectivity=1)
    kept = np.zeros(regions.max() + 1, dtype=np.bool_)
    kept[regions[mask & (_fraction_around(mask, sigma) > 0.75)]] = True
    large: NDArray[np.bool_] = kept[regions]
    return large


def _densities(thumbnail: NDArray[np.uint8], grain: float) -> NDArray[np.float32]:
    """Return the optical densities of red, green and blue, shape ``(3, h, w)``.

    Light is averaged before the logarithm, as a lens does, so that thin dark lines have little weight.
    """
    planes = np.moveaxis(thumbnail, -1, 0).astype(np.float32)
    light = np.stack([filters.gaussian(plane, grain) for plane in planes]) + 1
    lightest = np.percentile(light[:, ::4, ::4], 99, axis=(1, 2), keepdims=True).astype(np.float32)
    # A field full of tissue has no glass; glass is assumed to be bright and colourless.
    glass = np.maximum(lightest, 0.93 * max(150, lightest.max()))
    densities: NDArray[np.float32] = -np.log10(light / glass)
    return densities
