"""An open slide: its resolution in µm per pixel, and the pixels of its levels."""

from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.errors import SlideError
from e2e_abmilx.slides.background import blank
from e2e_abmilx.slides.readers import Reader, open_reader, open_second_reader
from e2e_abmilx.slides.resolution import Resolution, Stated, decide_resolution
from e2e_abmilx.slides.thumbnail import Level, draw_thumbnail, read_shrunk

#: A level whose µm per pixel differs by at most this fraction from the requested value is used without resampling.
SNAP = 0.02


class ReadPlan(NamedTuple):
    """How to read patches at one scale from a slide.

    Attributes:
        level: Pyramid level to read.
        downsample: Level-0 pixels per pixel of that level.
        footprint: Level-0 pixels along the side of a patch.
        mpp: Actual µm per pixel of the patches: the requested scale, or that of the level if it is within 2 %.
    """

    level: int
    downsample: float
    footprint: float
    mpp: float


class Slide:
    """An open slide; close it, or use it in a ``with`` statement.

    A TIFF is opened by tiffslide and decoded by tifffile if its encoding is among those that tifffile is proven to
    decode correctly; everything else is read by OpenSlide. Missing and transparent pixels show the slide's background.

    Args:
        path: The slide file; of a DICOM slide any file of its series.
        reader: Reader of the file; by default the one that is trusted with it.

    Attributes:
        path: The slide file.
        name: Its name without suffix.
        reader: Name of the reader: ``"tifffile"`` or ``"OpenSlide"``.
        stated: The resolution that the file states.
        properties: Properties of the file by OpenSlide's names, which viewers follow.
        background: Red, green and blue where the slide has no pixels.
        level_dimensions: Width and height of each level, pixels, finest first.
        size: Width and height of level 0, pixels.
        level_downsamples: Level-0 pixels per pixel of each level.

    Raises:
        SlideError: The file does not exist, or no reader is trusted with its contents.
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
        self.background = self._reader.background
        self.level_dimensions = self._reader.level_dimensions
        self.size = self.level_dimensions[0]
        self.level_downsamples = self._reader.level_downsamples

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def by_other_reader(self) -> "Slide | None":
        """Open the same slide with the other reader; None if that cannot read it."""
        other = open_second_reader(self.path, self._reader)
        return None if other is None else Slide(self.path, reader=other)

    def resolution(self, assume_mpp: float | None = None, *, override_mpp: float | None = None) -> Resolution:
        """Return the level-0 µm per pixel and its source.

        In order of precedence: the override (with a warning if the slide states a value that differs by more than 2 %),
        the value that the slide states, 10 divided by its objective power, and the assumed value.

        Args:
            assume_mpp: µm per pixel of a slide that states neither µm per pixel nor an objective power.
            override_mpp: µm per pixel to use whatever the slide states.

        Raises:
            SlideError: There is no value, or the slide's pixels are not square: their sides differ by more than 5 %.
        """
        return decide_resolution(self.stated, self.path, assume_mpp, override_mpp)

    def plan(self, scale: float, patch_size: int, mpp: float) -> ReadPlan:
        """Choose the level to read patches of one scale from.

        The coarsest level that is not coarser than the scale is read and resized. A level within 2 % of the scale is used
        without resampling.

        Args:
            scale: µm per pixel of the patches.
            patch_size: Side of a patch, pixels.
            mpp: Level-0 µm per pixel of the slide.

        Raises:
            SlideError: The slide is coarser than the scale, so that pixels would have to be invented.
        """
        if mpp > scale * (1 + SNAP):
            raise SlideError(
                f"{self.path} has {mpp:.4g} µm/px, coarser than the {scale:g} µm/px requested;"
                f" ask for scales of {mpp:.3g} µm/px or more"
            )
        downsample = scale / mpp
        level = self.coarsest_level(downsample)
        own = self.level_downsamples[level]
        if abs(own / downsample - 1) <= SNAP:
            downsample = own
        return ReadPlan(level, own, patch_size * downsample, mpp * downsample)

    def coarsest_level(self, downsample: float) -> int:
        """Return the coarsest level with at most this downsample, give or take 2 %."""
        fine = [level for level, own in enumerate(self.level_downsamples) if own <= downsample * (1 + SNAP)]
        return max(fine, key=lambda level: self.level_downsamples[level])

    def read_level(self, level: int, x: int, y: int, width: int, height: int, *, shrink: int = 1) -> NDArray[np.uint8]:
        """Read a rectangle of a level; thread-safe.

        Pixels beyond the edge, pixels that the file leaves out and transparent pixels are background. A tile that is cut
        off or overwritten is an error. A few flipped bits go unnoticed: JPEG has no checksum, and a stream that is still
        well-formed decodes to wrong pixels.

        Args:
            level: Pyramid level.
            x: Left edge, pixels of the level.
            y: Top edge, pixels of the level.
            width: Pixels of the level.
            height: Pixels of the level.
            shrink: Side of the squares of pixels that are averaged to one; those at the right and bottom may be smaller.

        Returns:
            RGB pixels, uint8, shape ``(height / shrink, width / shrink, 3)``, rounded up.

        Raises:
            SlideError: The pixels cannot be decoded.
        """
        return read_shrunk(partial(self._read, level), (x, y, width, height), shrink)

    def thumbnail(self, max_side: int = 2048) -> NDArray[np.uint8]:
        """Return the whole slide in small.

        It is drawn from the coarsest level that is fine enough. If that is damaged, a coarser level is used. If all are, it
        is the level with the largest part that can be decoded; the rest is background, and a warning states how much.

        Args:
            max_side: Largest number of pixels along the longer side.

        Returns:
            RGB pixels, uint8, shape ``(h, w, 3)``.

        Raises:
            SlideError: No pixel can be decoded, or the file is cut off.
        """
        sizes = zip(self.level_dimensions, self.level_downsamples, strict=True)
        levels = [
            Level(size, downsample, self._reader.tile(number), self.background, partial(self._read, number))
            for number, (size, downsample) in enumerate(sizes)
        ]
        return draw_thumbnail(self.path, levels, max_side)

    def _read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read a rectangle of a level, with background beyond the edges."""
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
                f"{self.path}: level {level} cannot be read at x {x}, y {y} ({type(error).__name__}: {error}); the file is"
                " damaged or uses a compression that the reader does not know"
            ) from error
