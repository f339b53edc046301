"""``import_images``: folders of patch images → patch stores."""

import contextlib
import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from e2e_abmilx.cache.caching import make_stores
from e2e_abmilx.cache.imports.attributes import import_attributes, nan_to_none
from e2e_abmilx.cache.imports.image_names import NamedImages, Names, choose_names, edge_tiles, numbers_in_names
from e2e_abmilx.cache.jobs import StoreJob
from e2e_abmilx.cache.manifest import CachedSlide
from e2e_abmilx.cache.tiling import parse_scales
from e2e_abmilx.errors import InputError, SourceError
from e2e_abmilx.slides.slide_files import SlideFile
from e2e_abmilx.store import StoreError, StoreWriter
from e2e_abmilx.store.locations import as_writable

logger = logging.getLogger(__name__)

_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_MODES = ("RGB", "RGBA", "L", "P")  # 8 bits per channel; transparency is dropped


def import_images(
    folder: Path, out: str | Path, *, mpp: float | None = None, names: Names | None = None, workers: int = 2
) -> list[CachedSlide]:
    """Make patch stores of images: one folder per slide, and in it one PNG, JPEG or TIFF per patch.

    If the names of all images of a slide end in two numbers, alone or after the slide's name and ``_``, as in
    ``s1/s1_1024_512.png``, these may be the level-0 ``x_y`` of the patch's top left corner or, for DeepZoom tiles,
    ``column_row``. The level-0 coordinates of tiles, and of images with other names, are unknown. Images at the edge of a
    slide that are narrower or lower than its others are left out, and counted as unreadable in the manifest. Baseline
    JPEG files are stored unchanged.

    Args:
        folder: Folder of the slides' folders.
        out: Folder of the stores, created if it does not exist; or their URL in a bucket, such as ``s3://bucket/cohort``.
        mpp: µm per pixel of the images; unknown by default.
        names: Meaning of two numbers in names, ``"pixels"`` or ``"tiles"``; by default the only one that fits.
        workers: Number of slides imported at the same time, each by its own process.

    Returns:
        One row per slide, as in the manifest.

    Raises:
        SourceError: There is no folder of images, or the numbers in their names may be pixels or tiles.
        TilingError: mpp is not positive.
        CacheError: A slide was imported into this folder from another source or with other settings.
    """
    place = as_writable(out)
    (scale,) = parse_scales(() if mpp is None else (mpp,)) or (math.nan,)
    slides = sorted(path for path in Path(folder).glob("[!.]*") if path.is_dir())
    if not slides:
        raise SourceError(f"{folder} holds no folder; it must hold one folder of images per slide")
    if _are_levels(slides):
        raise SourceError(
            f"{folder} is the DeepZoom pyramid of one slide: its folders {slides[0].name} to {slides[-1].name} are levels;"
            " put those of one level into a folder named after the slide, next to those of the other slides"
        )
    meaning = _read_names(Path(folder), slides, names)
    jobs = [_ImagesJob(SlideFile(path, title=path.name), Path(place), scale, meaning) for path in slides]
    return make_stores(jobs, place, workers)


def _are_levels(folders: Sequence[Path]) -> bool:
    """Return whether folders are the levels of a DeepZoom pyramid: 0, 1, 2 …, of which the first has only 0_0."""
    if {path.name for path in folders} != set(map(str, range(len(folders)))):
        return False
    first = next(path for path in folders if path.name == "0")
    return [path.stem for path in _images_in(first)] == ["0_0"]


def _read_names(folder: Path, slides: Sequence[Path], names: Names | None) -> Names:
    """Return the meaning of the numbers in the names of images, and log it."""
    numbered: dict[str, NamedImages] = {}
    for slide in slides:
        files = _images_in(slide)
        numbers = numbers_in_names(slide.name, files)
        if numbers is not None:
            numbered[slide.name] = NamedImages(numbers, _largest_side(files))
    if not numbered:
        return names or "pixels"
    meaning = names or choose_names(folder, numbered)
    if meaning == "tiles":
        logger.warning(
            "the images in %s are named after their columns and rows, as DeepZoom tiles are: their level-0 coordinates"
            " are unknown, so no heatmaps can be drawn; if the numbers are level-0 pixels, give names=pixels (--names)",
            folder,
        )
    else:
        logger.info("the images of %d slides are named after their level-0 coordinates", len(numbered))
    return meaning


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in _IMAGES)


def _largest_side(files: Sequence[Path]) -> int:
    """Return the longest side of a few images, pixels; those that cannot be opened are reported later."""
    longest = 1
    for file in files[:: max(1, len(files) // 8)]:
        with contextlib.suppress(SourceError), _open_image(file) as image:
            longest = max(longest, *image.size)
    return longest


@dataclass(frozen=True)
class _ImagesJob(StoreJob):
    """One slide, given as a folder of images."""

    mpp: float
    names: Names

    def origin(self) -> dict[str, object]:
        files = _images_in(self.slide.path)
        sizes = [(path.name, path.stat().st_size) for path in files]
        digest = hashlib.sha256(repr(sizes).encode()).hexdigest()[:32]
        source = {"images": self.slide.path.name, "fingerprints": [digest]}
        tiles = self.names == "tiles" and numbers_in_names(self.slide.name, files) is not None
        return {"imported": {**source, "mpp": nan_to_none([self.mpp]), "names": "tiles" if tiles else None}}

    def write(self) -> None:
        files = _images_in(self.slide.path)
        if not files:
            raise SourceError(f"{self.slide.path} holds no image: no file ends in {', '.join(_IMAGES)}")
        sizes = []
        for file in files:
            with _open_image(file) as image:
                sizes.append(image.size)
        side = Counter(sizes).most_common(1)[0][0][0]
        numbers = numbers_in_names(self.slide.name, files)
        left_out = np.zeros(len(files), bool) if numbers is None else edge_tiles(numbers, sizes, side)
        if left_out.any():
            logger.warning(
                "%s: left out %d of %d images, which are smaller than %d × %d pixels at the edge of the slide",
                self.slide.path, left_out.sum(), len(files), side, side,
            )  # fmt: skip
        unknown = np.full((len(files), 2), -1)
        coords = unknown if numbers is None or self.names == "tiles" else numbers
        attributes = import_attributes(self, [len(files)], [self.mpp])
        with StoreWriter(self.store, [self.mpp], patch_size=side, attributes=attributes) as writer:
            for patch in np.flatnonzero(~left_out):
                _write_image(writer, files[patch], side, coords[patch : patch + 1])


def _write_image(writer: StoreWriter, file: Path, side: int, coords: np.ndarray) -> None:
    with _open_image(file) as image:
        if image.size != (side, side) or image.mode not in _MODES:
            raise SourceError(
                f"{file} is {image.width} × {image.height} pixels of {image.mode}; the images of a slide must be"
                f" square, all of one size, here {side}, and of {', '.join(_MODES)}"
            )
        if image.format == "JPEG":
            with contextlib.suppress(StoreError):  # a grey or progressive one is decoded and encoded again
                writer.write_encoded([file.read_bytes()], coords)
                return
        pixels = np.asarray(image.convert("RGB"))
    writer.write(pixels[None], coords)


@contextlib.contextmanager
def _open_image(file: Path) -> Iterator[Image.Image]:
    """Open an image for the ``with`` block; turn every error into a SourceError that names the file."""
    try:
        with Image.open(file) as image:
            yield image
    except InputError:
        raise
    except Exception as error:  # decoders raise errors of many types
        raise SourceError(f"{file} cannot be read as an image ({error}); remove or replace it") from error
