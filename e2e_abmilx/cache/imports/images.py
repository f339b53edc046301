"""Folders of patch images → patch stores."""

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

from e2e_abmilx.cache.build import StoreJob
from e2e_abmilx.cache.caching import make_stores
from e2e_abmilx.cache.imports.tile_names import NamedImages, Names, at_an_edge, numbers_in_names, tell_names
from e2e_abmilx.cache.manifest import CachedSlide
from e2e_abmilx.errors import InputError, SourceError
from e2e_abmilx.store import StoreError, StoreWriter

logger = logging.getLogger(__name__)

from e2e_abmilx.cache.imports.facts import NamedSource, import_facts, known_scales, parse_mpp

_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


_MODES = ("RGB", "RGBA", "L", "P")  # 8 bits a channel; transparency is dropped


def import_images(
    folder: Path, out: Path, *, mpp: float | None = None, names: Names | None = None, workers: int = 2
) -> list[CachedSlide]:
    """Make patch stores of images: a folder for each slide, in it a PNG, JPEG or TIFF for each patch.

    Where the names of all images of a slide end in two numbers, alone or after the slide's name and ``_``, as in
    ``s1/s1_1024_512.png``, these may be the level-0 pixel ``x_y`` of the patch's top left corner, or, of DeepZoom
    tiles, ``column_row``; where tiles lie in level-0 pixels is unknown, as that of images of other names. Images at the
    edge of a slide that are narrower or lower than its others are left out, and counted in the manifest as unreadable.
    Baseline JPEG files are stored unchanged.

    Args:
        folder: Folder of the slides' folders.
        out: Folder of the stores; made where it does not exist.
        mpp: µm per pixel of the images; unknown by default.
        names: What two numbers in names are, ``"pixels"`` or ``"tiles"``; by default what they can only be.
        workers: Slides imported at the same time, each by a process of its own.

    Returns:
        A row for each slide, as in the manifest.

    Raises:
        SourceError: There is no folder of images, or numbers in their names may be pixels as well as tiles.
        CacheError: A slide was imported here from something else or in another way.
    """
    (scale,) = parse_mpp(None if mpp is None else (mpp,)) or (math.nan,)
    slides = sorted(path for path in Path(folder).glob("[!.]*") if path.is_dir())
    if not slides:
        raise SourceError(f"{folder} holds no folder; it needs one for each slide, with the images in it")
    if _are_levels(slides):
        raise SourceError(
            f"{folder} is the DeepZoom pyramid of one slide: its folders {slides[0].name} to {slides[-1].name} are levels;"
            " put those of one level into a folder named after the slide, beside the other slides'"
        )
    meaning = _read_names(Path(folder), slides, names)
    jobs = [_ImageFolder(NamedSource(path.name, path), Path(out), scale, meaning) for path in slides]
    return make_stores(jobs, Path(out), workers)


def _are_levels(folders: Sequence[Path]) -> bool:
    """Whether folders are 0, 1, 2 … of which the first has the one tile 0_0: levels of a DeepZoom pyramid."""
    if {path.name for path in folders} != set(map(str, range(len(folders)))):
        return False
    first = next(path for path in folders if path.name == "0")
    return [path.stem for path in _images_in(first)] == ["0_0"]


def _read_names(folder: Path, slides: Sequence[Path], names: Names | None) -> Names:
    """What the numbers in the names of images are, said in one line of the log."""
    numbered: dict[str, NamedImages] = {}
    for slide in slides:
        files = _images_in(slide)
        numbers = numbers_in_names(slide.name, files)
        if numbers is not None:
            numbered[slide.name] = NamedImages(numbers, _largest_side(files))
    if not numbered:
        return names or "pixels"
    meaning = names or tell_names(folder, numbered)
    if meaning == "tiles":
        logger.warning(
            "the images in %s are named after their columns and rows, as DeepZoom tiles are: where they lie in level-0"
            " pixels is unknown, so that no heatmaps can be drawn; if they are level-0 pixels, say names=pixels (--names)",
            folder,
        )
    else:
        logger.info("the images of %d slides are named after their level-0 pixels", len(numbered))
    return meaning


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in _IMAGES)


def _largest_side(files: Sequence[Path]) -> int:
    """Pixels along the longest side of a few images; what cannot be opened is named later, with its slide."""
    longest = 1
    for file in files[:: max(1, len(files) // 8)]:
        with contextlib.suppress(SourceError), _open_image(file) as image:
            longest = max(longest, *image.size)
    return longest


@dataclass(frozen=True)
class _ImageFolder(StoreJob):
    mpp: float
    names: Names

    def origin(self) -> dict[str, object]:
        files = _images_in(self.slide.path)
        sizes = [(path.name, path.stat().st_size) for path in files]
        digest = hashlib.sha256(repr(sizes).encode()).hexdigest()[:32]
        source = {"images": self.slide.path.name, "fingerprints": [digest]}
        tiles = self.names == "tiles" and numbers_in_names(self.slide.name, files) is not None
        return {"imported": {**source, "mpp": known_scales([self.mpp]), "names": "tiles" if tiles else None}}

    def write(self) -> None:
        files = _images_in(self.slide.path)
        if not files:
            raise SourceError(f"{self.slide.path} holds no image: no file ends in {', '.join(_IMAGES)}")
        sizes = [_size(file) for file in files]
        side = Counter(sizes).most_common(1)[0][0][0]
        numbers = numbers_in_names(self.slide.name, files)
        left_out = np.zeros(len(files), bool) if numbers is None else at_an_edge(numbers, sizes, side)
        if left_out.any():
            logger.warning(
                "%s: %d of %d images are left out; at the edge of the slide they are smaller than %d × %d pixels",
                self.slide.path, left_out.sum(), len(files), side, side,
            )  # fmt: skip
        unknown = np.full((len(files), 2), -1)
        coords = unknown if numbers is None or self.names == "tiles" else numbers
        facts = import_facts(self, [len(files)], [self.mpp])
        with StoreWriter(self.store, [self.mpp], patch_size=side, attributes=facts) as writer:
            for patch in np.flatnonzero(~left_out):
                _write_image(writer, files[patch], side, coords[patch : patch + 1])


def _size(file: Path) -> tuple[int, int]:
    with _open_image(file) as image:
        return image.size


def _write_image(writer: StoreWriter, file: Path, side: int, coords: np.ndarray) -> None:
    with _open_image(file) as image:
        if image.size != (side, side) or image.mode not in _MODES:
            raise SourceError(
                f"{file} is {image.width} × {image.height} pixels of {image.mode}; the images of a slide must be"
                f" square, all of one size, here {side}, and of {', '.join(_MODES)}"
            )
        if image.format == "JPEG":
            with contextlib.suppress(StoreError):  # a grey or progressive one is encoded anew
                writer.write_encoded([file.read_bytes()], coords)
                return
        pixels = np.asarray(image.convert("RGB"))
    writer.write(pixels[None], coords)


@contextlib.contextmanager
def _open_image(file: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            yield image
    except InputError:
        raise
    except Exception as error:  # decoders raise many kinds
        raise SourceError(
            f"{file} cannot be read as an image ({error}); remove it or make it anew"
        ) from error
