"""A slide read by OpenSlide."""

import threading
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from e2e_abmilx.slides.background import lay_over, parse_colour
from e2e_abmilx.slides.encodings import OPENSLIDE
from e2e_abmilx.slides.resolution import Stated, stated_by_openslide

_PART = (2048, 2048)
_MARGIN = 512  # pixels of a level that are read in vain at most, to begin on a level-0 pixel
_SHARP = 0.005  # pixels of a level by which that may be missed


class OpenSlideReader:
    """A slide that OpenSlide opens; what it has no pixels of shows the background that it states, or white.

    Args:
        path: The file.
        stated: What the slide says of its resolution; by default what OpenSlide finds.

    Attributes:
        name: What this reader is called.
        vendor: The format, as OpenSlide calls it.
        background: Red, green and blue where there are no pixels.
        stated: What the file says of its resolution.
        properties: What OpenSlide finds in the file, by its names.
        level_dimensions: Width and height of each level, pixels.
        level_downsamples: Level-0 pixels per pixel of each level.

    Raises:
        openslide.OpenSlideError: It cannot be opened.
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
        """Width and height of what is lost together where a level is damaged, pixels."""
        return _PART

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """RGB pixels of a rectangle inside a level, shape ``(height, width, 3)``."""
        downsample = self.level_downsamples[level]
        left, top = _whole_start(x, downsample), _whole_start(y, downsample)
        location = (round(left * downsample), round(top * downsample))
        size = (width + x - left, height + y - top)
        slide = self._slide
        try:
            pixels = np.asarray(slide.read_region(location, level, size))[y - top :, x - left :]
        except openslide.OpenSlideError:
            with self._lock:  # after an error OpenSlide reads nothing more until it is opened anew
                if self._slide is slide:
                    self._slide = openslide.OpenSlide(self._path)
            raise
        return lay_over(pixels[..., :3], pixels[..., 3], self.background, associated=False)

    def close(self) -> None:
        """Close the file."""
        self._slide.close()


def detect_vendor(path: Path) -> str | None:
    """The format that OpenSlide takes a file for; None for one that it does not know."""
    try:
        vendor = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:
        return None
    return None if vendor is None else str(vendor)


def _whole_start(position: int, downsample: float) -> int:
    """The nearest pixel at or before ``position`` of a level that begins on a level-0 pixel, as nearly as can be.

    OpenSlide takes level-0 places, and blurs what begins between two pixels of the level.
    """
    if downsample.is_integer():
        return position
    starts = range(position, max(-1, position - _MARGIN), -1)
    offsets = [abs(round(start * downsample) / downsample - start) for start in starts]
    near = next((number for number, offset in enumerate(offsets) if offset < _SHARP), None)
    return starts[offsets.index(min(offsets)) if near is None else near]
