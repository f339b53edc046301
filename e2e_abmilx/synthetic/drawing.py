"""The pixels of a slide.

A slide is painted from two maps, as a section is stained twice: how much eosin lies on a pixel (the pink ground of
fibres and clefts) and what share of the pixel is nucleus. A colour table, different on every slide, turns the pair
into RGB. In a lesion the nuclei are large, irregular and pale inside, with a nucleolus, as in a carcinoma. Lesion and
normal tissue get the same mean share of nucleus over the same ground, and the table is linear in that share, so
their mean colours are equal by construction: texture tells a lesion, colour does not.
"""

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.errors import InputError
from e2e_abmilx.synthetic.nuclei import draw_nuclei
from e2e_abmilx.synthetic.surfaces import noise
from e2e_abmilx.synthetic.truth import MASK_DOWNSAMPLE, Truth, lay_out

#: Pixels along the side of a tile of the file, which the side of a slide is a multiple of.
TILE = 256


def draw_slide(
    *, seed: int, lesion_share: float, side: int = 2048, mpp: float = 0.5
) -> tuple[NDArray[np.uint8], Truth]:
    """Draw one slide: off-white glass, 1-3 pieces of tissue on 42-58 % of it, 1-3 lesions in that tissue.

    Args:
        seed: Decides all that the other arguments leave open: shapes, nuclei, stain, brightness.
        lesion_share: Lesion area as a share of the tissue area, in [0, 1).
        side: Pixels along the side, a multiple of 256.
        mpp: µm per pixel, from 0.1 to 2.

    Returns:
        RGB pixels, shape ``(side, side, 3)``, and the truth about them.

    Raises:
        InputError: An argument is out of its range.
    """
    check_slide(side, mpp, seed)
    if not 0 <= lesion_share < 1:
        raise InputError(
            f"lesion_share is {lesion_share} but must lie in [0, 1), being a share of the tissue; "
            "give 0 for a slide without lesion"
        )
    rng = np.random.default_rng(seed)
    truth, cover = lay_out(rng, side // MASK_DOWNSAMPLE, lesion_share)
    eosin = _draw_ground(rng, side, mpp)
    nucleus = draw_nuclei(rng, truth, mpp)
    return _stain(rng, eosin, nucleus, cover), truth


def check_slide(side: int, mpp: float, seed: int) -> None:
    """Refuse what no slide can be drawn with.

    Raises:
        InputError: An argument is out of its range.
    """
    if side < TILE or side % TILE:
        nearest = max(round(side / TILE), 1) * TILE
        raise InputError(
            f"side is {side} pixels but must be a multiple of {TILE}, the tile of the file; try {nearest}"
        )
    if not 0.1 <= mpp <= 2:
        raise InputError(
            f"mpp is {mpp} µm per pixel but must lie in [0.1, 2], where a nucleus of 6 µm is 3 to 60 pixels wide; "
            "0.5 is a 20x scan"
        )
    if seed < 0:
        raise InputError(f"seed is {seed} but must not be negative; try {-seed}")


def _draw_ground(rng: np.random.Generator, side: int, mpp: float) -> NDArray[np.uint8]:
    """Eosin on each pixel, 0-255: wavy bundles of fibres, pale clefts, grain."""
    turn = 2 * np.pi * rng.random()
    step = (
        256 * mpp / 6.0 * np.array([np.sin(turn), np.cos(turn)])
    )  # a fibre, or 256 steps of phase, is 6 µm wide
    down, right = (
        np.rint(np.outer(step, np.arange(side))).astype(np.int64).astype(np.int16)
    )  # wraps, as phases may
    phase = noise(rng, side, {256: 1600, 128: 500, 64: 300, 32: 150, 16: 60, 8: 20})
    phase += down[:, None]
    phase += right
    wave = np.rint(64 * np.sin(2 * np.pi * np.arange(256) / 256)).astype(np.int16)
    strength = np.clip(noise(rng, side, {128: 16, 32: 16, 16: 8}) + 14, 0, 40)
    fibres = wave[phase & 255] * strength >> 6
    clefts = 2 * np.clip(noise(rng, side, {64: 60, 32: 60, 16: 50, 8: 20, 4: 10}) - 62, 0, 50)
    grain = noise(rng, side, {256: 14, 64: 12, 16: 10, 4: 12, 2: 10, 1: 6})
    eosin: NDArray[np.int16] = 132 + fibres - clefts + grain
    return np.clip(eosin, 0, 255).astype(np.uint8)


def _stain(
    rng: np.random.Generator, eosin: NDArray[np.uint8], nucleus: NDArray[np.uint8], cover: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Colour the maps, each ``(side, side)`` and 0-255, with a stain and a light of this slide's own."""

    def near(red: float, green: float, blue: float, spread: float) -> NDArray[np.float64]:
        return np.array([red, green, blue]) * (1 + spread * (2 * rng.random(3) - 1))

    light = near(240, 238, 241, spread=0.02)
    density = near(0.08, 0.38, 0.20, spread=0.2) * (0.85 + 0.3 * rng.random())  # of the most eosin, log10
    purple = near(105, 72, 140, spread=0.12)
    levels = np.arange(256) / 255
    pink = light * 10 ** -np.outer(levels, density)
    table = np.rint(pink + levels[:, None, None] * (purple - pink)).astype(np.uint8)  # (nucleus, eosin, RGB)

    wide = cover.astype(np.uint16)
    glass = 10  # a trace of eosin, so that bare glass is not one flat colour
    entry = (nucleus * wide // 255) << 8 | eosin * np.maximum(wide, glass) // 255
    image = np.empty((*entry.shape, 3), np.uint8)
    for channel in range(3):
        image[..., channel] = table[..., channel].ravel()[entry]
    return image
