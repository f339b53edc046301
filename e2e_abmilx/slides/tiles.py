"""One level of a TIFF, read tile by tile (or strip by strip) and decoded by tifffile."""

import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from e2e_abmilx.slides.background import WHITE, blank, composite
from e2e_abmilx.slides.encodings import JPEG_COMPRESSIONS, Encoding

# A JPEG marker other than those within pixel data: stuffing, restarts and fill.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class _Plane(NamedTuple):
    """The tiles of one plane: their places in the file, the tiles of the page before them, and their JPEG tables."""

    offsets: Sequence[int]
    sizes: Sequence[int]
    first: int
    tables: dict[str, Any]


class TiledLevel:
    """One level of a pyramid; a strip is a tile as wide as the image.

    Tiles that the file leaves out are background. A tile that is cut off or lies beyond the end of the file is an error;
    libjpeg would return its beginning and fill the rest with grey. tifffile must be trusted with the encoding.
    """

    def __init__(self, level: tifffile.TiffPageSeries, encoding: Encoding) -> None:
        page = level.keyframe
        self._file = page.parent.filehandle
        self._encoding = encoding
        is_tiled = encoding.layout == "tiles"
        self.size: tuple[int, int] = (page.imagewidth, page.imagelength)
        self._width: int = page.tilewidth if is_tiled else page.imagewidth
        self._height: int = page.tilelength if is_tiled else min(page.rowsperstrip, page.imagelength)
        self.tile = (self._width, self._height)
        self._columns = math.ceil(page.imagewidth / self._width)
        self._rows = math.ceil(page.imagelength / self._height)
        is_jpeg = page.compression in JPEG_COMPRESSIONS
        self._planes = []
        pages: list[Any] = list(level.pages)
        for each in pages:
            tables = {"jpegtables": each.jpegtables, "jpegheader": each.keyframe.jpegheader} if is_jpeg else {}
            for number in range(encoding.samples if encoding.planar == "separate" else 1):
                first = number * self._columns * self._rows
                self._planes.append(_Plane(each.dataoffsets, each.databytecounts, first, tables))
        self._decode: Callable[..., Any] = page.decode
        # Tiles that share a JPEG header have no end marker.
        self._has_end_markers = is_jpeg and page.jpegheader is None

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return the RGB pixels of a rectangle inside the level, shape ``(height, width, 3)``.

        Raises:
            EOFError: The file ends before a tile does.
            Exception: Any error of tifffile and its decoders.
        """
        region = np.empty((height, width, 3), np.uint8)
        for row in range(y // self._height, math.ceil((y + height) / self._height)):
            for column in range(x // self._width, math.ceil((x + width) / self._width)):
                top, left = row * self._height - y, column * self._width - x
                target = region[max(top, 0) : top + self._height, max(left, 0) : left + self._width]
                tile = self._tile(row * self._columns + column)
                target[:] = tile[max(-top, 0) : height - top, max(-left, 0) : width - left]
        return region

    def samples(self) -> list[tuple[int, int]]:
        """Return the corners of the first, the middle and the last tile that the file holds."""
        sizes = self._planes[0].sizes
        present = [index for index in range(self._columns * self._rows) if index < len(sizes) and sizes[index]]
        picked = sorted({present[0], present[len(present) // 2], present[-1]}) if present else []
        return [(i % self._columns * self._width, i // self._columns * self._height) for i in picked]

    def lacks_tiles(self) -> bool:
        """Return whether the file leaves tiles out."""
        return any(not size for plane in self._planes for size in plane.sizes)

    def _tile(self, index: int) -> NDArray[np.uint8]:
        """Return the RGB pixels of a tile."""
        parts = [self._plane(plane, index) for plane in self._planes]
        present = [part for part in parts if part is not None]
        if not present:
            return blank(self._height, self._width, WHITE)
        if len(present) < len(parts):
            raise ValueError(f"tile {index} is absent from some of its {len(parts)} planes")
        pixels = present[0] if len(present) == 1 else np.concatenate(present, axis=2)
        if pixels.shape[2] != self._encoding.samples:
            raise ValueError(f"tile {index} has {pixels.shape[2]} samples, not {self._encoding.samples}")
        if self._encoding.alpha == "none":
            return pixels
        associated = self._encoding.alpha == "associated"
        return composite(pixels[..., :3], pixels[..., 3], WHITE, associated=associated)

    def _plane(self, plane: _Plane, index: int) -> NDArray[np.uint8] | None:
        """Decode the samples of a tile, shape ``(height, width, samples)``; None if the file leaves it out."""
        number = index + plane.first
        offset, size = plane.offsets[number], plane.sizes[number]
        if offset == 0 or size == 0:
            return None
        if offset + size > self._file.size:
            raise EOFError(f"tile {index} lies beyond the end of the file, at {offset}")
        if size > 8 * self._height * self._width + 65536:  # a damaged table could ask for the whole file
            raise ValueError(f"tile {index} cannot have {size} bytes")
        data = os.pread(self._file.fileno(), size, offset)
        if self._has_end_markers and not _is_whole(data):
            raise ValueError(f"tile {index} is cut off")
        pixels: NDArray[np.uint8] = self._decode(data, number, **plane.tables)[0][0]
        return pixels


def _is_whole(jpeg: bytes) -> bool:
    """Return whether the pixels after the last scan header of a stream run up to the end marker."""
    stop = _MARKER.search(jpeg, jpeg.rfind(b"\xff\xda") + 2)
    return stop is not None and stop.group() == b"\xff\xd9"
