"""The reader that is trusted with a file: tifffile for what it is proven to read rightly, OpenSlide for the rest."""

from pathlib import Path
from typing import Protocol

import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray

from e2e_abmilx.slides.background import Colour
from e2e_abmilx.slides.encodings import TIFFFILE
from e2e_abmilx.slides.openslide_reader import OpenSlideReader, detect_vendor
from e2e_abmilx.slides.pyramids import find_pyramid, level_encodings, readers_of
from e2e_abmilx.slides.resolution import Stated, stated_by_tiff
from e2e_abmilx.slides.slide_error import SlideError
from e2e_abmilx.slides.tiff_reader import TiffReader, open_tiff, tile_breaks_off

# Formats of plain pages of tiles. OpenSlide knows more of every other one: tiles that overlap, gaps, true sizes.
_PLAIN = ("generic-tiff", "aperio")

# What tifffile recognises such a format by; where OpenSlide does not, the file is not what it seems to be.
_SPECIAL = {"bif": "Ventana BIF", "scn": "Leica SCN", "philips": "Philips TIFF"}
_NDPI = 65420  # a tag that only Hamamatsu's files have


class Reader(Protocol):
    """What reads a slide; its attributes are those of :class:`TiffReader`."""

    name: str
    background: Colour
    stated: Stated
    properties: dict[str, str]
    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]

    def tile(self, level: int) -> tuple[int, int]:
        """Width and height of what is lost together where a level is damaged, pixels."""

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """RGB pixels of a rectangle inside a level, shape ``(height, width, 3)``."""

    def close(self) -> None:
        """Close the file."""


def open_reader(path: Path) -> Reader:
    """Open a slide with the reader that is trusted with it.

    Raises:
        SlideError: There is none, or what is the slide in this file is in doubt.
    """
    vendor = detect_vendor(path)
    if vendor not in (*_PLAIN, None):
        return _open_by_openslide(path, f"it is of the format {vendor}")
    try:
        tiff = open_tiff(path)
    except Exception as error:  # tifffile raises many kinds on damaged files
        raise SlideError(f"{path} cannot be opened as a slide ({type(error).__name__}: {error})") from error
    if tiff is None:
        if vendor is None:
            raise SlideError(
                f"{path} cannot be opened as a slide: it is neither a TIFF nor of a format of OpenSlide"
            )
        return _open_by_openslide(path, "it is no TIFF")
    try:
        return _open_plain(path, tiff)
    except BaseException:
        tiff.close()
        raise


def open_second_reader(path: Path, first: Reader) -> Reader | None:
    """The other reader of a slide, which checks the first; None where the slide has no other."""
    if not isinstance(first, TiffReader) or not first.is_first_page:
        return None
    try:
        other = OpenSlideReader(path)
    except openslide.OpenSlideError:
        return None
    if other.vendor in _PLAIN and other.level_dimensions[0] == first.level_dimensions[0]:
        return other
    other.close()
    return None


def _open_plain(path: Path, tiff: tifffile.TiffFile) -> Reader:
    """Open a TIFF of plain pages."""
    special = [name for flag, name in _SPECIAL.items() if getattr(tiff, f"is_{flag}")]
    special += ["Hamamatsu NDPI"] if _NDPI in tiff.pages.first.tags else []
    if special:
        raise SlideError(
            f"{path} says that it is a {special[0]}, and OpenSlide cannot read it as one; export it anew"
        )
    try:
        image = find_pyramid(tiff)
        readers = readers_of(image)
        stated = stated_by_tiff(tiff, image)
    except SlideError as error:
        raise SlideError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # tifffile raises many kinds on damaged files
        raise SlideError(f"{path} cannot be opened as a slide ({type(error).__name__}: {error})") from error
    size = (image.keyframe.imagewidth, image.keyframe.imagelength)
    if readers != {TIFFFILE}:
        why = f"tifffile is not trusted with its encoding ({level_encodings(image)[0]})"
        return _open_in_place_of_tifffile(path, tiff, why, size, stated)
    reader = TiffReader(tiff, image, stated)
    failure = reader.failure()
    if failure is not None and not tile_breaks_off(failure):
        why = f"tifffile cannot decode it ({type(failure).__name__}: {failure})"
        return _open_in_place_of_tifffile(path, tiff, why, size, stated)
    if reader.lacks_coarse_tiles() and detect_vendor(path) == "aperio":  # they show what the finer level has
        return _open_in_place_of_tifffile(
            path, tiff, "it leaves out tiles of its coarser levels", size, stated
        )
    return reader


def _open_in_place_of_tifffile(
    path: Path, tiff: tifffile.TiffFile, why: str, size: tuple[int, int], stated: Stated
) -> Reader:
    reader = _open_by_openslide(path, why, stated)
    if reader.level_dimensions[0] != size:
        shown = " × ".join(map(str, reader.level_dimensions[0]))
        reader.close()
        raise SlideError(
            f"{path} cannot be read: {why}, and OpenSlide takes another image of the file for the slide, of {shown}"
            f" pixels and not of {size[0]} × {size[1]}; write the slide into a file of its own"
        )
    tiff.close()
    return reader


def _open_by_openslide(path: Path, why: str, stated: Stated | None = None) -> Reader:
    """Open with OpenSlide, and see that it can read at all."""
    try:
        reader = OpenSlideReader(path, stated)
    except openslide.OpenSlideError as error:
        raise SlideError(f"{path} cannot be read: {why}, and OpenSlide cannot open it ({error})") from error
    try:
        reader.read(0, reader.level_dimensions[0][0] // 2, reader.level_dimensions[0][1] // 2, 1, 1)
    except openslide.OpenSlideError as error:
        reader.close()
        raise SlideError(f"{path} cannot be read: {why}, and OpenSlide cannot decode it ({error})") from error
    return reader
