"""Open a slide; know its resolution in µm/px and where that number came from; read regions of its levels."""

import csv
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import tiffslide
from PIL import Image

from e2e_abmilx.errors import InputError

logger = logging.getLogger(__name__)

#: File name endings that are taken as slides when a folder is listed.
SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".svslide", ".bif", ".vms", ".dcm")

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

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Read a rectangle of a level.

        Args:
            level: Pyramid level.
            x: Left edge, pixels of the level.
            y: Top edge, pixels of the level.
            width: Pixels of the level; the rectangle must lie inside it.
            height: Pixels of the level.

        Returns:
            RGB pixels, uint8, shape ``(height, width, 3)``.

        Raises:
            SlideError: The pixels cannot be decoded.
        """
        downsample = self.level_downsamples[level]
        location = (_level_zero(x, downsample), _level_zero(y, downsample))
        try:
            region = self._reader.read_region(location, level, (width, height))
        except Exception as error:  # readers raise whatever their decoders raise
            raise SlideError(
                f"{self.path}: level {level} cannot be read at x {x}, y {y} ({type(error).__name__}: {error});"
                " the file is damaged or uses a compression that the reader does not know"
            ) from error
        return np.asarray(region)[..., :3]

    def thumbnail(self, max_side: int = 2048) -> np.ndarray:
        """Read the whole slide, small.

        Where the level that serves best is damaged, a coarser one is taken.

        Args:
            max_side: Pixels along the longer side at most.

        Returns:
            RGB pixels, uint8, shape ``(h, w, 3)``.

        Raises:
            SlideError: The pixels cannot be decoded.
        """
        shrink = max(1.0, max(self.size) / max_side)
        side = (max(1, round(self.size[0] / shrink)), max(1, round(self.size[1] / shrink)))
        downsamples = sorted(self.level_downsamples)
        best = max(downsample for downsample in downsamples if downsample <= shrink)
        refusals = []
        for downsample in downsamples[downsamples.index(best) :]:
            factor = max(1, int(shrink / downsample))
            try:
                pooled = self._read_pooled(self.level_downsamples.index(downsample), factor)
            except SlideError as error:
                refusals.append(error)
                continue
            width, height = self.level_dimensions[self.level_downsamples.index(downsample)]
            box = (0.0, 0.0, width / factor, height / factor)
            return np.asarray(Image.fromarray(pooled).resize(side, Image.Resampling.HAMMING, box=box))
        raise refusals[0]

    def _read_pooled(self, level: int, factor: int) -> np.ndarray:
        """A whole level, averaged over squares; read in bands, so that a large one is never held whole."""
        width, height = self.level_dimensions[level]
        rows = max(1, _BAND_PIXELS // (width * factor)) * factor
        bands = (self.read_level(level, 0, y, width, min(rows, height - y)) for y in range(0, height, rows))
        return np.concatenate([_mean_pool(band, factor) for band in bands])

    def _stated_mpp(self) -> float | None:
        x, y = _positive(self._property("mpp-x")), _positive(self._property("mpp-y"))
        return None if x is None or y is None else math.sqrt(x * y)

    def _property(self, name: str) -> object:
        return self.properties.get(f"tiffslide.{name}", self.properties.get(f"openslide.{name}"))


def find_slides(slides: Path | Sequence[Path]) -> list[Path]:
    """The slide files that a folder, a list or a CSV names.

    Raises:
        SlideError: There is none, or two have one name.
    """
    if not isinstance(slides, str | Path):
        paths = [Path(path) for path in slides]
    elif Path(slides).suffix.lower() == ".csv":
        paths = _read_paths(Path(slides))
    elif Path(slides).is_dir():
        paths = _list_folder(Path(slides))
    elif Path(slides).exists():
        paths = [Path(slides)]
    else:
        raise SlideError(f"{slides}: there is no such folder, file or CSV of slides; check the path")
    if not paths:
        raise SlideError("the list of slides is empty; name at least one file or a folder")
    _refuse_same_names(paths)
    return paths


_BAND_PIXELS = 2**24  # of a level, read at once for a thumbnail


def _list_folder(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise SlideError(f"{folder} holds no slide: no file ends in {', '.join(SUFFIXES)}")
    return found


def _read_paths(table: Path) -> list[Path]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise SlideError(f"{table} cannot be read ({error.strerror}); check the path") from error
    if rows and "slide" not in rows[0]:
        raise SlideError(f"{table} has the columns {list(rows[0])}; it needs one named slide, of paths")
    return [table.parent / row["slide"] for row in rows]


def _refuse_same_names(paths: Sequence[Path]) -> None:
    """Two slides of one name would share a store."""
    seen: dict[str, Path] = {}
    for path in paths:
        if path.stem in seen:
            raise SlideError(f"{seen[path.stem]} and {path} are both named {path.stem!r}; rename one of them")
        seen[path.stem] = path


def _level_zero(position: int, downsample: float) -> int:
    """The level-0 pixel that readers, which round down, take back to ``position`` in the level."""
    if downsample.is_integer():
        return position * int(downsample)
    return math.ceil(position * downsample + 1e-3)


def _mean_pool(image: np.ndarray, factor: int) -> np.ndarray:
    """Mean over ``factor`` × ``factor`` squares; the last ones are filled up with the edge."""
    if factor == 1:
        return image
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge")
    rows, columns = padded.shape[0] // factor, padded.shape[1] // factor
    means = padded.reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3), dtype=np.float32)
    pooled: np.ndarray = np.rint(means).astype(np.uint8)
    return pooled


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
