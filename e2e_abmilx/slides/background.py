"""What is seen where a slide has no pixels: its background, never black."""

import numpy as np
from numpy.typing import NDArray

#: Red, green and blue of bare glass, for slides that state no background colour.
WHITE = (255, 255, 255)

Colour = tuple[int, int, int]


def parse_colour(text: object) -> Colour:
    """Red, green and blue of six hexadecimal digits, as OpenSlide states a background; white for anything else."""
    digits = str(text or "").removeprefix("#")
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        return WHITE
    return red, green, blue


def blank(height: int, width: int, colour: Colour) -> NDArray[np.uint8]:
    """Pixels of one colour, shape ``(height, width, 3)``."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = colour
    return pixels


def lay_over(
    pixels: NDArray[np.uint8], alpha: NDArray[np.uint8], colour: Colour, *, associated: bool
) -> NDArray[np.uint8]:
    """Lay partly transparent pixels over the background.

    Args:
        pixels: RGB, shape ``(h, w, 3)``.
        alpha: 255 where a pixel is opaque, 0 where nothing of it is seen, shape ``(h, w)``.
        colour: The background.
        associated: Whether the pixels are multiplied by alpha already.

    Returns:
        RGB, shape ``(h, w, 3)``.
    """
    if (alpha == 255).all():
        return pixels
    opacity = alpha[..., None].astype(np.uint32)
    own = pixels.astype(np.uint32) * (255 if associated else opacity)
    behind = np.array(colour, np.uint32) * (255 - opacity)
    mixed: NDArray[np.uint8] = np.minimum((own + behind + 127) // 255, 255).astype(np.uint8)
    return mixed
