"""A TIFF, opened by tiffslide and read by the tifffile in it: only in encodings that this is trusted with."""

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
    """The slide's image in a TIFF.

    Args:
        tiff: The open file, which the reader closes.
        image: Its image that is the slide, of encodings that tifffile is trusted with.
        stated: What the file says of its resolution.

    Attributes:
        name: What this reader is called.
        background: Red, green and blue where there are no pixels.
        stated: What the file says of its resolution.
        properties: What OpenSlide, and so viewers, find in the file, by OpenSlide's names.
        is_first_page: Whether the slide is the file's first page, which is what OpenSlide takes for it.
        level_dimensions: Width and height of each level, pixels.
        level_downsamples: Level-0 pixels per pixel of each level.
    """

    name = TIFFFILE
    background = WHITE

    def __init__(self, tiff: tifffile.TiffFile, image: tifffile.TiffPageSeries, stated: Stated) -> None:
        self._tiff = tiff
        encodings = level_encodings(image)
        self._levels = [
            TiledLevel(level, encoding) for level, encoding in zip(image.levels, encodings, strict=True)
        ]
        self.stated = stated
        self.properties: dict[str, str] = {}  # that viewers go by: plain TIFFs have none
        self.is_first_page = image.keyframe.index == 0 and encodings[0].planar != "pages"
        self.level_dimensions = tuple(level.size for level in self._levels)
        width, height = self.level_dimensions[0]
        self.level_downsamples = tuple(((width / w) + (height / h)) / 2.0 for w, h in self.level_dimensions)

    def tile(self, level: int) -> tuple[int, int]:
        """Width and height of what is lost together where a level is damaged, pixels."""
        return self._levels[level].tile

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """RGB pixels of a rectangle inside a level, shape ``(height, width, 3)``."""
        return self._levels[level].read(x, y, width, height)

    def failure(self) -> Exception | None:
        """Why none of some tiles of the finest level can be decoded; None where one can."""
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
        """Whether the file leaves tiles out of a level other than the finest."""
        return any(level.lacks_tiles() for level in self._levels[1:])

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()


def tile_breaks_off(error: BaseException) -> bool:
    """Whether a tile is damaged rather than of a kind that tifffile does not know."""
    return isinstance(error, EOFError | OSError | MemoryError) or "breaks off" in str(error)


def open_tiff(path: Path) -> tifffile.TiffFile | None:
    """The file as tiffslide opens it, or None where it is no TIFF.

    Its pixels are not read by ``TiffSlide.read_region``, which is far slower and decodes whatever it is given.
    """
    try:
        if "::" in str(
            path
        ):  # which fsspec, through which tiffslide opens files, takes for a chain of protocols
            return tifffile.TiffFile(path, is_ndpi=False)
        tiff: tifffile.TiffFile = TiffSlide(path, tifffile_options={"is_ndpi": False}).ts_tifffile
        return tiff
    except tifffile.TiffFileError:
        return None
