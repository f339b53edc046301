"""Slides read by OpenSlide."""

import threading
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from e2e_abmilx.slides.background import composite, parse_colour
from e2e_abmilx.slides.encodings import OPENSLIDE
from e2e_abmilx.slides.resolution import Stated, stated_by_openslide

_PART = (2048, 2048)
_MARGIN = 512  # largest number of extra pixels of a level that are read in order to start on a level-0 pixel
_SHARP = 0.005  # distance to a level-0 pixel, in pixels of a level, that blurs nothing


class OpenSlideReader:
    """A slide that OpenSlide opens, with the background that it states, or white, where it has no pixels.

    Args:
        path: The file.
        stated: The resolution that the slide states; by default the one that OpenSlide finds.

    Attributes:
        vendor: OpenSlide's name of the format.

    The other attributes are those of :class:`~e2e_abmilx.slides.Slide`.

    Raises:
        openslide.OpenSlideError: The file cannot be opened.
    """

    name = OPENSLIDE

    def __init__(self, path: Path, stated: Stated | None = None) -> None:
        self._path = path
        self._slide = openslide.OpenSlide(path)
        self._lock = threading.Lock()
        self.properties = dict(self._slide.properties)
        self.vendor = self.properties.get("openslide.vendor", "")
        self.background = parse_colour(self.properties.get("openslide.background-color"))
        self.stated = stated_by_openslide(self.properties) if stated is None else stated
        self.level_dimensions = tuple(self._slide.level_dimensions)
        self.level_downsamples = tuple(float(each) for each in self._slide.level_downsamples)

    def tile(self, level: int) -> tuple[int, int]:
        """Return the width and height, pixels, of the parts of a level that are read at once."""
        return _PART

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return the RGB pixels of a rectangle inside a level, shape ``(height, width, 3)``."""
        downsample = self.level_downsamples[level]
        left, top = _whole_start(x, downsample), _whole_start(y, downsample)
        location = (round(left * downsample), round(top * downsample))
        size = (width + x - left, height + y - top)
        slide = self._slide
        try:
            pixels = np.asarray(slide.read_region(location, level, size))[y - top :, x - left :]
        except openslide.OpenSlideError:
            with self._lock:  # after an error OpenSlide must be opened again
                if self._slide is slide:
                    self._slide = openslide.OpenSlide(self._path)
            raise
        return composite(pixels[..., :3], pixels[..., 3], self.background, associated=False)

    def close(self) -> None:
        """Close the file."""
        self._slide.close()


def detect_vendor(path: Path) -> str | None:
    """Return the format that OpenSlide detects; None for a file that it does not know."""
    try:
        vendor = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:
        return None
    return None if vendor is None else str(vendor)


def _whole_start(position: int, downsample: float) -> int:
    """Return the nearest pixel of a level, at or before ``position``, that starts (nearly) on a level-0 pixel.

    OpenSlide takes level-0 positions and blurs a region that starts between two pixels of the level.
    """
    if downsample.is_integer():
        return position
    starts = range(position, max(-1, position - _MARGIN), -1)
    offsets = [abs(round(start * downsample) / downsample - start) for start in starts]
    near = next((number for number, offset in enumerate(offsets) if offset < _SHARP), None)
    return starts[offsets.index(min(offsets)) if near is None else near]
