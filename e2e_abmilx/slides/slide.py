"""Open a slide; know its resolution in µm/px and where that number came from; read regions of its levels."""

from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.slides.background import Colour, blank
from e2e_abmilx.slides.readers import Reader, open_reader, open_second_reader
from e2e_abmilx.slides.resolution import Resolution, Stated, decide
from e2e_abmilx.slides.slide_error import SlideError
from e2e_abmilx.slides.thumbnail import Read, draw_thumbnail, read_shrunk

#: A pyramid level whose µm/px is within this share of the one asked for is used as it is, unresampled.
SNAP = 0.02


class ReadPlan(NamedTuple):
    """How to read patches of one scale from a slide.

    Attributes:
        level: Pyramid level to read.
        downsample: Level-0 pixels per pixel of that level.
        footprint: Level-0 pixels along the side of a patch.
        mpp: µm/px that the patches really have: the scale asked for, or the level's own where it snapped.
    """

    level: int
    downsample: float
    footprint: float
    mpp: float


class Slide:
    """An open slide; close it, or use it in a ``with`` statement.

    A TIFF is opened by tiffslide and read by the tifffile in it where its encoding is among those that it is proven to decode rightly; everything else
    is read by OpenSlide. Pixels that a slide does not have, or that are transparent, show its background.

    Args:
        path: The slide file; of a DICOM slide any file of its series.
        reader: What reads it; by default the reader that is trusted with it.

    Attributes:
        path: The slide file.
        name: Its name without the ending.
        reader: Name of what reads it: ``"tifffile"`` or ``"OpenSlide"``.
        stated: What the file says of its resolution.
        properties: What OpenSlide, and so viewers, find in it, by OpenSlide's names.
        level_dimensions: Width and height of each level, pixels, the finest first.
        level_downsamples: Level-0 pixels per pixel of each level.

    Raises:
        SlideError: The file does not exist, or no reader is trusted with what is in it; says in words what that is.
    """

    def __init__(self, path: str | Path, *, reader: Reader | None = None) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        if not self.path.exists():
            raise SlideError(f"{self.path}: there is no such file; check the path")
        self._reader = open_reader(self.path) if reader is None else reader
        self.reader: str = self._reader.name
        self.stated: Stated = self._reader.stated
        self.properties = self._reader.properties
        self.level_dimensions = self._reader.level_dimensions
        self.level_downsamples = self._reader.level_downsamples

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def by_other_reader(self) -> "Slide | None":
        """The same slide, opened by the other reader; None where no other can read it."""
        other = open_second_reader(self.path, self._reader)
        return None if other is None else Slide(self.path, reader=other)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height at level 0, in pixels."""
        return self.level_dimensions[0]

    @property
    def background(self) -> Colour:
        """Red, green and blue where the slide has no pixels."""
        return self._reader.background

    def resolution(self, assume_mpp: float | None = None, *, override_mpp: float | None = None) -> Resolution:
        """Level-0 µm/px: an override, the slide's own, its objective power, or what is assumed, in this order.

        An override is the word of whoever knows the slide, and stands against what the slide says of itself; where
        the two differ by more than 2 %, a warning and the source say so.

        Args:
            assume_mpp: µm/px of a slide that states neither µm/px nor an objective power.
            override_mpp: µm/px to believe whatever the slide says.

        Raises:
            SlideError: Nothing states the resolution and nothing is assumed, or the slide's own pixels are not
                square: their sides differ by more than 5 %.
        """
        return decide(self.stated, self.path, assume_mpp, override_mpp)

    def plan(self, scale: float, patch_size: int, mpp: float) -> ReadPlan:
        """Choose the level to read patches of one scale from.

        The coarsest level that is not coarser than the scale is read and resized; a level within 2 % of the
        scale is taken as it is.

        Args:
            scale: µm/px of the patches.
            patch_size: Side of a patch, pixels.
            mpp: The slide's level-0 µm/px.

        Raises:
            SlideError: The slide is coarser than the scale: pixels would be invented.
        """
        if mpp > scale * (1 + SNAP):
            raise SlideError(
                f"{self.path} has {mpp:.4g} µm/px, coarser than the {scale:g} µm/px asked for;"
                f" ask for scales of {mpp:.3g} µm/px or more"
            )
        downsample = scale / mpp
        finer = [level for level, d in enumerate(self.level_downsamples) if d <= downsample * (1 + SNAP)]
        level = max(finer, key=lambda index: self.level_downsamples[index])
        own = self.level_downsamples[level]
        if abs(own / downsample - 1) <= SNAP:
            downsample = own
        return ReadPlan(level, own, patch_size * downsample, mpp * downsample)

    def read_level(
        self, level: int, x: int, y: int, width: int, height: int, *, shrink: int = 1
    ) -> NDArray[np.uint8]:
        """Read a rectangle of a level; any number of threads may.

        What lies beyond the edge, what the file leaves out, and what is transparent is background. A tile that breaks
        off or is overwritten is an error. A few flipped bits or bytes are not seen: JPEG has no checksum, and a stream
        that is still in form decodes, to wrong pixels.

        Args:
            level: Pyramid level.
            x: Left edge, pixels of the level.
            y: Top edge, pixels of the level.
            width: Pixels of the level.
            height: Pixels of the level.
            shrink: Side of the squares of pixels that are averaged to one; the last ones may be smaller.

        Returns:
            RGB pixels, uint8, shape ``(height / shrink, width / shrink, 3)``, rounded up.

        Raises:
            SlideError: The pixels cannot be decoded.
        """
        return read_shrunk(partial(self._read, level), (x, y, width, height), shrink)

    def thumbnail(self, max_side: int = 2048) -> NDArray[np.uint8]:
        """Read the whole slide, small.

        Where the level that serves best is damaged, a coarser one is taken. Where all are, it is the one of which
        most can be decoded; what cannot be is background, as glass, and a warning says how much that is.

        Args:
            max_side: Pixels along the longer side at most.

        Returns:
            RGB pixels, uint8, shape ``(h, w, 3)``.

        Raises:
            SlideError: No pixel can be decoded, or the file is cut off.
        """
        levels = (_Level(self, self._reader, level) for level in range(len(self.level_dimensions)))
        return draw_thumbnail(self.path, levels, max_side)

    def _read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Pixels of a level, and background beyond its edges."""
        limits = self.level_dimensions[level]
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, limits[0]), min(y + height, limits[1])
        if (left, top, right, bottom) == (x, y, x + width, y + height):
            return self._decode(level, x, y, width, height)
        region = blank(height, width, self.background)
        if left < right and top < bottom:
            inside = self._decode(level, left, top, right - left, bottom - top)
            region[top - y : bottom - y, left - x : right - x] = inside
        return region

    def _decode(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        try:
            return self._reader.read(level, x, y, width, height)
        except Exception as error:  # readers raise whatever their decoders raise
            raise SlideError(
                f"{self.path}: level {level} cannot be read at x {x}, y {y} ({type(error).__name__}: {error});"
                " the file is damaged or uses a compression that the reader does not know"
            ) from error


class _Level:
    """What a thumbnail needs of a level."""

    def __init__(self, slide: Slide, reader: Reader, level: int) -> None:
        self.size = slide.level_dimensions[level]
        self.downsample = slide.level_downsamples[level]
        self.tile = reader.tile(level)
        self.background = slide.background
        self.read: Read = partial(slide._read, level)
