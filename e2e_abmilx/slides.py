"""Open a slide; know its resolution in µm/px and where that number came from; read regions of its levels."""

import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import tifffile
import tiffslide
from PIL import Image

from e2e_abmilx.errors import InputError

logger = logging.getLogger(__name__)

#: Level-0 resolutions outside this range, in µm/px, are screen or print dpi (72 dpi is 352.8) and not believed.
PLAUSIBLE_MPP = (0.02, 20.0)

#: A pyramid level whose µm/px is within this share of the one asked for is used as it is, unresampled.
SNAP = 0.02

_POWER_TIMES_MPP = 10.0  # a 40x objective samples about 0.25 µm/px, a 20x one 0.5


class SlideError(InputError):
    """A slide that cannot be used."""


class Resolution(NamedTuple):
    """Level-0 resolution of a slide.

    Attributes:
        mpp: µm per pixel.
        source: Where the number came from, such as ``"aperio header"`` or ``"assumed"``.
    """

    mpp: float
    source: str


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

    Read by tiffslide, and by OpenSlide (the ``openslide`` extra) for what tiffslide cannot open.

    Args:
        path: The slide file.

    Raises:
        SlideError: The file does not exist or no reader can open it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        if not self.path.exists():
            raise SlideError(f"{self.path}: there is no such file; check the path")
        self._reader = _open(self.path)
        self.level_dimensions: tuple[tuple[int, int], ...] = tuple(self._reader.level_dimensions)
        self.level_downsamples: tuple[float, ...] = tuple(float(d) for d in self._reader.level_downsamples)
        self.properties: dict[str, Any] = dict(self._reader.properties)
        self._tiled = _tiled_levels(self._reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height at level 0, in pixels."""
        return self.level_dimensions[0]

    def resolution(self, assume_mpp: float | None = None, *, override_mpp: float | None = None) -> Resolution:
        """Level-0 µm/px: an override, the slide's own fields, its objective power, or what is assumed.

        Args:
            assume_mpp: µm/px for a slide that states none.
            override_mpp: µm/px to believe whatever the slide says.

        Raises:
            SlideError: Nothing states the resolution and nothing is assumed.
        """
        if override_mpp is not None:
            return Resolution(override_mpp, "override")
        vendor = self._property("vendor")
        stated = self._stated_mpp()
        if stated is not None and PLAUSIBLE_MPP[0] <= stated <= PLAUSIBLE_MPP[1]:
            return Resolution(stated, f"{vendor} header" if vendor else "TIFF resolution tags")
        power = _positive(self._property("objective-power"))
        if power is not None and assume_mpp is None:
            mpp = _POWER_TIMES_MPP / power
            logger.warning("%s states no µm/px: taking %.4g from its %gx objective", self.path, mpp, power)
            return Resolution(mpp, f"objective power {power:g}x")
        if assume_mpp is not None:
            return Resolution(assume_mpp, "assumed")
        said = f"states {stated:.4g} µm/px, which is screen dpi," if stated else "does not state its µm/px,"
        raise SlideError(
            f"{self.path} {said} and has no objective power; say it with assume_mpp, for example 0.25 for a 40x scan"
        )

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
    ) -> np.ndarray:
        """Read a rectangle of a level; any number of threads may.

        A tile that is absent, breaks off or is overwritten is an error. A few flipped bits or bytes are not seen:
        JPEG has no checksum, and a stream that is still in form decodes, to wrong pixels.

        Args:
            level: Pyramid level.
            x: Left edge, pixels of the level.
            y: Top edge, pixels of the level.
            width: Pixels of the level; the rectangle must lie inside it.
            height: Pixels of the level.
            shrink: Side of the squares of pixels that are averaged to one; the last ones may be smaller.

        Returns:
            RGB pixels, uint8, shape ``(height / shrink, width / shrink, 3)``, rounded up.

        Raises:
            SlideError: The pixels cannot be decoded.
        """
        return _read_shrunk(partial(self._read, level), (x, y, width, height), shrink)

    def thumbnail(self, max_side: int = 2048) -> np.ndarray:
        """Read the whole slide, small.

        Where the level that serves best is damaged, a coarser one is taken. Where all are, it is the one of which
        most can be decoded; what cannot be is white, as glass, and a warning says how much that is.

        Args:
            max_side: Pixels along the longer side at most.

        Returns:
            RGB pixels, uint8, shape ``(h, w, 3)``.

        Raises:
            SlideError: No pixel can be decoded, or the file is cut off.
        """
        shrink = max(1.0, max(self.size) / max_side)
        side = (max(1, round(self.size[0] / shrink)), max(1, round(self.size[1] / shrink)))
        best = max(downsample for downsample in self.level_downsamples if downsample <= shrink)
        found = []
        for downsample in sorted(each for each in self.level_downsamples if each >= best):
            level = self.level_downsamples.index(downsample)
            lost, picture, error = self._shrink_level(level, max(1, int(shrink / downsample)), side)
            if error is None:
                return picture
            found.append((lost, picture, error))
        lost, picture, error = min(found, key=itemgetter(0))
        if lost == 1 or isinstance(error.__cause__, _NO_SALVAGE):
            raise error
        logger.warning(
            "%.2g %% of the thumbnail of %s is missing and counts as glass, so no patches come from there: %s",
            100 * lost,
            self.path,
            error,
        )
        return picture

    def _shrink_level(
        self, level: int, factor: int, side: tuple[int, int]
    ) -> tuple[float, np.ndarray, SlideError | None]:
        """What share of a level cannot be read, the level resized to ``side``, and what was wrong with it."""
        width, height = self.level_dimensions[level]
        tile = self._tiled[level].tile if self._tiled else (_PART, _PART)
        salvage = _Salvage(partial(self._read, level, absent=_GLASS), tile)
        pooled = Image.fromarray(_read_shrunk(salvage.read, (0, 0, width, height), factor))
        box = (0.0, 0.0, width / factor, height / factor)
        picture = np.asarray(pooled.resize(side, Image.Resampling.HAMMING, box=box))
        return salvage.lost / (width * height), picture, salvage.error

    def _read(
        self, level: int, x: int, y: int, width: int, height: int, *, absent: int | None = None
    ) -> np.ndarray:
        """Pixels of a level; tiles that the file leaves out get the grey value ``absent``, unless it is None."""
        try:
            if self._tiled:
                return self._tiled[level].read(x, y, width, height, absent)
            downsample = self.level_downsamples[level]
            location = (_level_zero(x, downsample), _level_zero(y, downsample))
            return np.asarray(self._reader.read_region(location, level, (width, height)))[..., :3]
        except Exception as error:  # readers raise whatever their decoders raise
            raise SlideError(
                f"{self.path}: level {level} cannot be read at x {x}, y {y} ({type(error).__name__}: {error});"
                " the file is damaged or uses a compression that the reader does not know"
            ) from error

    def _stated_mpp(self) -> float | None:
        x, y = _positive(self._property("mpp-x")), _positive(self._property("mpp-y"))
        return None if x is None or y is None else math.sqrt(x * y)

    def _property(self, name: str) -> object:
        return self.properties.get(f"tiffslide.{name}", self.properties.get(f"openslide.{name}"))


_PART = 2048  # pixels along the side of what is read at once to be shrunk
_GLASS = 255  # of tiles that a thumbnail finds absent: scanners leave out where they saw no tissue

# A file that was cut off can be copied again, and a machine that failed may read it next time.
_NO_SALVAGE = (EOFError, OSError, MemoryError)

_Read = Callable[[int, int, int, int], np.ndarray]  # x, y, width, height → pixels


def _read_shrunk(read: _Read, box: tuple[int, int, int, int], shrink: int) -> np.ndarray:
    """A rectangle in which each square of ``shrink`` pixels is averaged to one."""
    left, top, width, height = box
    if shrink == 1:
        return read(*box)
    shrunk = np.empty((math.ceil(height / shrink), math.ceil(width / shrink), 3), np.uint8)
    step = max(1, _PART // shrink)  # in parts, so that a large rectangle is never held whole
    for row in range(0, shrunk.shape[0], step):
        for column in range(0, shrunk.shape[1], step):
            x, y = column * shrink, row * shrink
            size = (min(step * shrink, width - x), min(step * shrink, height - y))
            part = Image.fromarray(read(left + x, top + y, *size)).reduce(shrink)
            shrunk[row : row + step, column : column + step] = np.asarray(part)
    return shrunk


class _Salvage:
    """Reads a level with glass in place of the tiles that cannot be decoded.

    Args:
        read: Reads a rectangle of the level.
        tile: Width and height of what is lost together, pixels.

    Attributes:
        lost: Pixels that became glass.
        error: What was wrong last, or what forbids to make do with the rest; None where nothing was wrong.
    """

    def __init__(self, read: _Read, tile: tuple[int, int]) -> None:
        self._read = read
        self._tile = tile
        self.lost = 0
        self.error: SlideError | None = None

    def read(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Whatever can be read of a rectangle."""
        whole = self._try(x, y, width, height)
        if whole is not None:
            return whole
        region = np.full((height, width, 3), _GLASS, np.uint8)
        for top, bottom in _spans(y, y + height, self._tile[1]):
            for left, right in _spans(x, x + width, self._tile[0]):
                pixels = self._try(left, top, right - left, bottom - top)
                if pixels is None:
                    self.lost += (right - left) * (bottom - top)
                else:
                    region[top - y : bottom - y, left - x : right - x] = pixels
        return region

    def _try(self, x: int, y: int, width: int, height: int) -> np.ndarray | None:
        try:
            return self._read(x, y, width, height)
        except SlideError as error:
            if self.error is None or not isinstance(self.error.__cause__, _NO_SALVAGE):
                self.error = error
            return None


def _spans(start: int, stop: int, step: int) -> Iterable[tuple[int, int]]:
    """The range from ``start`` to ``stop``, cut at the multiples of ``step``."""
    return pairwise([start, *range((start // step + 1) * step, stop, step), stop])


class _TiledLevel:
    """A level of a TIFF whose tiles are read and decoded here, by tifffile.

    tiffslide goes to the same tiles over zarr. That takes longer, makes absent tiles black, and passes on as whole
    what libjpeg makes of a stream that breaks off: its beginning, and grey.

    Args:
        level: One page of tiles, as ``_tiled_levels`` has checked.
    """

    def __init__(self, level: tifffile.TiffPageSeries) -> None:
        page: Any = level.pages[0]  # tifffile's type allows for pages that a series lacks
        self._file = level.keyframe.parent.filehandle
        self._offsets: Sequence[int] = page.dataoffsets
        self._sizes: Sequence[int] = page.databytecounts
        self._width: int = level.keyframe.tilewidth
        self._height: int = level.keyframe.tilelength
        self.tile = (self._width, self._height)
        self._columns = math.ceil(level.keyframe.imagewidth / self._width)
        self._tables = {"jpegtables": page.jpegtables, "jpegheader": level.keyframe.jpegheader}
        self._decode: Callable[..., Any] = level.keyframe.decode
        # A header that tiles share goes with tiles that have no end of their own.
        self._ends = level.keyframe.compression in _JPEG and level.keyframe.jpegheader is None

    def read(self, x: int, y: int, width: int, height: int, absent: int | None) -> np.ndarray:
        """As :meth:`Slide.read_level`, but raises what tifffile and its decoders raise."""
        region = np.empty((height, width, 3), np.uint8)
        for row in range(y // self._height, math.ceil((y + height) / self._height)):
            for column in range(x // self._width, math.ceil((x + width) / self._width)):
                tile = self._tile(row * self._columns + column, absent)
                top, left = row * self._height - y, column * self._width - x
                target = region[max(top, 0) : top + self._height, max(left, 0) : left + self._width]
                target[:] = tile[max(-top, 0) : height - top, max(-left, 0) : width - left, :3]
        return region

    def _tile(self, index: int, absent: int | None) -> np.ndarray:
        """A decoded tile, shape ``(height, width, samples)``."""
        offset, size = self._offsets[index], self._sizes[index]
        if offset == 0 or size == 0:
            if absent is None:
                raise ValueError(f"tile {index} is absent")
            return np.full((self._height, self._width, 3), absent, np.uint8)
        if offset + size > self._file.size:
            raise EOFError(f"tile {index} lies beyond the end of the file, at {offset}")
        if size > 8 * self._height * self._width:  # or a damaged table might have the whole file read
            raise ValueError(f"tile {index} cannot have {size} bytes")
        data = os.pread(self._file.fileno(), size, offset)
        if self._ends and not _is_whole(data):
            raise ValueError(f"tile {index} breaks off")
        pixels: np.ndarray = self._decode(data, index, **self._tables)[0][0]
        return pixels


_JPEG = (6, 7, 33007, 34892)  # TIFF's numbers for compressions whose tiles are JPEG streams

# A marker, but for those that stand among pixels: stuffing, restarts and fill.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _is_whole(jpeg: bytes) -> bool:
    """Whether nothing but the marker of the end stops the pixels that follow the last scan header of a stream."""
    stop = _MARKER.search(jpeg, jpeg.rfind(b"\xff\xda") + 2)
    return stop is not None and stop.group() == b"\xff\xd9"


def _tiled_levels(reader: Any) -> list[_TiledLevel]:  # noqa: ANN401 - one of two untyped readers
    """The levels of an RGB TIFF in tiles; none for a slide that is anything else."""
    if not isinstance(reader, tiffslide.TiffSlide) or "tiffslide.series-composition" in reader.properties:
        return []
    series = reader.ts_tifffile.series[reader.properties["tiffslide.series-index"]]
    plain = series.transform is None and all(
        level.axes == "YXS"
        and level.dtype == np.uint8
        and len(level.pages) == 1
        and level.keyframe.is_tiled
        and level.keyframe.planarconfig == tifffile.PLANARCONFIG.CONTIG
        and level.keyframe.samplesperpixel in (3, 4)
        for level in series.levels
    )
    return [_TiledLevel(level) for level in series.levels] if plain else []


def _level_zero(position: int, downsample: float) -> int:
    """The level-0 pixel that readers, which round down, take back to ``position`` in the level."""
    if downsample.is_integer():
        return position * int(downsample)
    return math.ceil(position * downsample + 1e-3)


def _positive(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _open(path: Path) -> Any:  # noqa: ANN401 - one of two untyped readers with the same methods
    """The first reader that opens the file."""
    try:
        return tiffslide.TiffSlide(path)
    except Exception as error:  # noqa: BLE001 - tiffslide raises many kinds
        refusal = error
    try:
        import openslide
    except ImportError:
        cure = "; `pip install e2e-abmilx[openslide]` adds formats that tiffslide does not know"
    else:
        try:
            return openslide.OpenSlide(path)
        except openslide.OpenSlideError as error:
            cure = f", nor by OpenSlide ({error})"
    raise SlideError(
        f"{path} cannot be opened as a slide by tiffslide ({type(refusal).__name__}: {refusal}){cure}"
    ) from refusal
