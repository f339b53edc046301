"""A slide's file: a tiled TIFF of several levels."""

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.synthetic.drawing import TILE, draw_slide
from e2e_abmilx.synthetic.truth import Truth

_LEVELS = 4  # the last has the size of the masks


def write_slide(path: Path, *, seed: int, lesion_share: float, side: int = 2048, mpp: float = 0.5) -> Truth:
    """Draw one slide and write it as a tiled, JPEG-compressed TIFF of four levels, each half the one before.

    The resolution tags hold the µm/px. The file takes its name only when it is whole.

    Args:
        path: File to write; its folder is made where missing.
        seed: Decides all that the other arguments leave open.
        lesion_share: Lesion area as a share of the tissue area, in [0, 1).
        side: Pixels along the side, a multiple of 256.
        mpp: µm per pixel, from 0.1 to 2.

    Returns:
        The truth about the slide.

    Raises:
        InputError: An argument is out of its range.
    """
    image, truth = draw_slide(seed=seed, lesion_share=lesion_share, side=side, mpp=mpp)
    with atomic_write(path) as unfinished:
        _write_pyramid(unfinished, image, mpp)
    return truth


def _write_pyramid(path: Path, image: NDArray[np.uint8], mpp: float) -> None:
    """Write an image as a tiled TIFF, its smaller levels as SubIFDs of the one page."""
    with tifffile.TiffWriter(path) as tiff:
        for level in range(_LEVELS):
            pixels_per_cm = 1e4 / (mpp * 2**level)
            tiff.write(
                image,
                photometric="rgb",
                tile=(TILE, TILE),
                compression="jpeg",
                compressionargs={"level": 90},
                resolution=(pixels_per_cm, pixels_per_cm),
                resolutionunit="CENTIMETER",
                subifds=_LEVELS - 1 if level == 0 else 0,
                subfiletype=0 if level == 0 else 1,
                metadata=None,
                software="e2e-abmilx",
                maxworkers=1,
            )
            image = _halve(image)


def _halve(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average each 2 × 2 pixels of an image ``(H, W, 3)``."""
    pairs = image[0::2].astype(np.uint16) + image[1::2]
    return ((pairs[:, 0::2] + pairs[:, 1::2] + 2) >> 2).astype(np.uint8)
