"""Slides in TIFFs, opened by tiffslide and decoded by tifffile, in the encodings that it is trusted with."""

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from tiffslide import TiffSlide

from e2e_abmilx.slides.background import WHITE
from e2e_abmilx.slides.encodings import TIFFFILE
from e2e_abmilx.slides.pyramids import level_encodings
from e2e_abmilx.slides.resolution import Stated
from e2e_abmilx.slides.tiles import TiledLevel


class TiffReader:
    """The image of a TIFF that is the slide.

    Args:
        tiff: The open file; the reader closes it.
        image: The image, in encodings that tifffile is trusted with.
        stated: The resolution that the file states.

    Attributes:
        is_first_page: Whether the slide is the first page of the file, which OpenSlide takes for the slide.

    The other attributes are those of :class:`~e2e_abmilx.slides.Slide`; a plain TIFF has no properties.
    """

    name = TIFFFILE
    background = WHITE

    def __init__(self, tiff: tifffile.TiffFile, image: tifffile.TiffPageSeries, stated: Stated) -> None:
        self._tiff = tiff
        encodings = level_encodings(image)
        self._levels = list(map(TiledLevel, image.levels, encodings))
        self.stated = stated
        self.properties: dict[str, str] = {}
        self.is_first_page = image.keyframe.index == 0 and encodings[0].planar != "pages"
        self.level_dimensions = tuple(level.size for level in self._levels)
        width, height = self.level_dimensions[0]
        self.level_downsamples = tuple(((width / w) + (height / h)) / 2.0 for w, h in self.level_dimensions)

    def tile(self, level: int) -> tuple[int, int]:
        """Return the width and height, pixels, of the tiles of a level, which damage affects as a whole."""
        return self._levels[level].tile

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return the RGB pixels of a rectangle inside a level, shape ``(height, width, 3)``."""
        return self._levels[level].read(x, y, width, height)

    def failure(self) -> Exception | None:
        """Return why none of some sample tiles of the finest level can be decoded; None if one can."""
        error: Exception | None = None
        for x, y in self._levels[0].samples():
            try:
                self.read(0, x, y, 1, 1)
            except Exception as found:  # noqa: BLE001 - decoders raise many kinds
                error = found
            else:
                return None
        return error

    def lacks_coarse_tiles(self) -> bool:
        """Return whether the file leaves tiles out of a level other than the finest."""
        return any(level.lacks_tiles() for level in self._levels[1:])

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()


def is_damage(error: BaseException) -> bool:
    """Return whether a tile is damaged rather than in an encoding that tifffile does not know."""
    return isinstance(error, EOFError | OSError | MemoryError) or "is cut off" in str(error)


def open_tiff(path: Path) -> tifffile.TiffFile | None:
    """Open a file as tiffslide does; None if it is not a TIFF.

    Its pixels are not read by ``TiffSlide.read_region``, which is far slower and does not refuse any encoding.
    """
    try:
        if "::" in str(path):  # for fsspec, by which tiffslide opens files, a chain of protocols
            return tifffile.TiffFile(path, is_ndpi=False)
        return TiffSlide(path, tifffile_options={"is_ndpi": False}).ts_tifffile
    except tifffile.TiffFileError:
        return None
