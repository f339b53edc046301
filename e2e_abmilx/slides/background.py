"""The background colour of a slide, shown where it has no pixels."""

import numpy as np
from numpy.typing import NDArray

#: Red, green and blue of bare glass, for slides that state no background colour.
WHITE = (255, 255, 255)

Colour = tuple[int, int, int]


def parse_colour(text: object) -> Colour:
    """Return red, green and blue of six hexadecimal digits, as OpenSlide states a background; white otherwise."""
    digits = str(text or "").removeprefix("#")
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        return WHITE
    return red, green, blue


def blank(height: int, width: int, colour: Colour) -> NDArray[np.uint8]:
    """Return pixels of one colour, shape ``(height, width, 3)``."""
    return np.full((height, width, 3), colour, np.uint8)


def composite(
    pixels: NDArray[np.uint8], alpha: NDArray[np.uint8], colour: Colour, *, associated: bool
) -> NDArray[np.uint8]:
    """Composite partly transparent RGB pixels, shape ``(h, w, 3)``, over a background of one colour.

    ``alpha`` is the opacity, 255 for opaque and 0 for invisible, shape ``(h, w)``; ``associated`` pixels are already
    multiplied by it.
    """
    if (alpha == 255).all():
        return pixels
    opacity = alpha[..., None].astype(np.uint32)
    foreground = pixels.astype(np.uint32) * (255 if associated else opacity)
    background = np.array(colour, np.uint32) * (255 - opacity)
    mixed: NDArray[np.uint8] = np.minimum((foreground + background + 127) // 255, 255).astype(np.uint8)
    return mixed
