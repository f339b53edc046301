"""One synthetic slide: its pixels and its file.

A slide is painted from two maps: the amount of eosin (pink fibres and pale clefts) and the fraction of each pixel that
is nucleus. Colour is linear in that fraction, whose mean is the same on lesions, benign changes and normal tissue over the
same ground. Their mean colours are therefore equal by construction: texture distinguishes a lesion, colour does not.
"""

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.synthetic.nuclei import draw_nuclei
from e2e_abmilx.synthetic.truth import MASK_DOWNSAMPLE, Map, Truth, draw_noise, lay_out

_TILE = 256  # pixels along the side of a tile of the file
_LEVELS = 4  # the last one has the size of the masks


def write_slide(
    path: Path, *, seed: int, lesion_fraction: float, benign_fraction: float = 0.0, side: int = 2048, mpp: float = 0.5
) -> Truth:
    """Draw a slide with the arguments of :func:`draw_slide`, write it to a file and return its true masks.

    The file is a tiled, JPEG-compressed TIFF of four levels, each half the size of the one before; its resolution tags
    hold ``mpp``. Its folder is created if missing.

    Raises:
        InputError: An argument is out of its range.
    """
    pixels, truth = draw_slide(
        seed=seed, lesion_fraction=lesion_fraction, benign_fraction=benign_fraction, side=side, mpp=mpp
    )
    image = Image.fromarray(pixels)
    with atomic_write(path) as unfinished, tifffile.TiffWriter(unfinished) as tiff:
        for level in range(_LEVELS):
            tiff.write(
                np.asarray(image.reduce(2**level)),
                photometric="rgb",
                tile=(_TILE, _TILE),
                compression="jpeg",
                compressionargs={"level": 90},
                resolution=(1e4 / (mpp * 2**level),) * 2,
                resolutionunit="CENTIMETER",
                subifds=_LEVELS - 1 if level == 0 else 0,
                subfiletype=0 if level == 0 else 1,
                metadata=None,
            )
    return truth


def draw_slide(
    *, seed: int, lesion_fraction: float, benign_fraction: float = 0.0, side: int = 2048, mpp: float = 0.5
) -> tuple[NDArray[np.uint8], Truth]:
    """Draw off-white glass with 1 to 3 pieces of tissue on 42 to 58 % of it and 1 to 3 lesions in the tissue.

    Benign changes are 1 to 3 regions outside the lesions whose nuclei lie between normal ones and those of a lesion. How
    close they come differs from slide to slide.

    Args:
        seed: Determines shapes, nuclei, stain and brightness.
        lesion_fraction: Lesion area as a fraction of the tissue area, in [0, 1).
        benign_fraction: Area of benign changes as a fraction of the tissue area; with the lesion it is less than 1.
        side: Pixels along the side, a multiple of 256.
        mpp: µm per pixel, from 0.1 to 2.

    Returns:
        RGB pixels, uint8, shape ``(side, side, 3)``, and the true masks.

    Raises:
        InputError: An argument is out of its range.
    """
    check_slide(side, mpp, seed)
    if not 0 <= lesion_fraction < 1:
        raise InputError(
            f"lesion_fraction is {lesion_fraction}; it is a fraction of the tissue and must lie in [0, 1): give 0 for a slide"
            " without lesion"
        )
    if not 0 <= benign_fraction < 1 - lesion_fraction:
        raise InputError(
            f"benign_fraction is {benign_fraction}; it is a fraction of the tissue, and with lesion_fraction,"
            f" {lesion_fraction}, it must lie in [0, 1): give 0 for a slide without benign changes"
        )
    rng = np.random.default_rng(seed)
    truth, opacity = lay_out(rng, side // MASK_DOWNSAMPLE, lesion_fraction, benign_fraction)
    eosin = _draw_ground(rng, side, mpp)
    nucleus = draw_nuclei(rng, truth, mpp)
    return _stain(rng, eosin, nucleus, opacity), truth


def check_slide(side: int, mpp: float, seed: int) -> None:
    """Refuse arguments with which no slide can be drawn.

    Raises:
        InputError: An argument is out of its range.
    """
    if side < _TILE or side % _TILE:
        nearest = max(round(side / _TILE), 1) * _TILE
        raise InputError(f"side is {side} pixels; it must be a multiple of {_TILE}, the side of a tile: try {nearest}")
    if not 0.1 <= mpp <= 2:
        raise InputError(
            f"mpp is {mpp} µm per pixel; it must lie in [0.1, 2], so that a nucleus of 6 µm is 3 to 60 pixels wide: 0.5"
            " is a 20x scan"
        )
    if seed < 0:
        raise InputError(f"seed is {seed}; it must not be negative: try {-seed}")


def _draw_ground(rng: np.random.Generator, side: int, mpp: float) -> Map:
    """Return the amount of eosin, in [0, 1]: wavy fibres about 6 µm wide, pale clefts, and grain."""
    turn = rng.uniform(0, 2 * np.pi)
    down, right = np.outer([np.sin(turn), np.cos(turn)], np.arange(side) * mpp / 6).astype(np.float32)
    phase = draw_noise(rng, side, {256: 6.2, 128: 2.0, 64: 1.2, 32: 0.6, 16: 0.25, 8: 0.08})
    phase += down[:, None]
    phase += right
    gaps = draw_noise(rng, side, {64: 0.47, 32: 0.47, 16: 0.39, 8: 0.16, 4: 0.08})
    fibres = np.clip(0.06 - 0.2 * gaps, 0, 0.16) * np.sin(2 * np.pi * phase)
    grain = draw_noise(rng, side, {256: 0.055, 64: 0.047, 16: 0.039, 4: 0.047, 2: 0.039, 1: 0.024})
    eosin: Map = np.clip(0.52 + fibres - np.clip(gaps - 0.49, 0, 0.39) + grain, 0, 1)
    return eosin


def _stain(rng: np.random.Generator, eosin: Map, nucleus: Map, opacity: Map) -> NDArray[np.uint8]:
    """Colour the maps, each ``(side, side)`` and in [0, 1], with a stain and a light drawn for this slide."""

    def vary(colour: tuple[float, float, float], spread: float) -> NDArray[np.float32]:
        return (np.array(colour) * rng.uniform(1 - spread, 1 + spread, 3)).astype(np.float32)

    light = vary((240, 238, 241), 0.02)
    density = vary((0.08, 0.38, 0.20), 0.2) * np.float32(rng.uniform(0.85, 1.15))  # optical, of full eosin
    purple = vary((105, 72, 140), 0.12)
    stained = eosin * np.maximum(opacity, 0.04)  # a trace on the glass, so that glass is not one flat colour
    covered = nucleus * opacity
    pixels = np.empty((*eosin.shape, 3), np.uint8)
    for channel in range(3):
        pink = light[channel] * np.exp(-np.log(np.float32(10)) * density[channel] * stained)
        pixels[..., channel] = np.rint(pink + covered * (purple[channel] - pink))
    return pixels
