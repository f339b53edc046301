"""The reader that is trusted with a file: tifffile where it is proven to read correctly, OpenSlide for the rest."""

from pathlib import Path

import openslide
import tifffile

from e2e_abmilx.errors import SlideError
from e2e_abmilx.slides.encodings import TIFFFILE, trusted_reader
from e2e_abmilx.slides.openslide_reader import OpenSlideReader, detect_vendor
from e2e_abmilx.slides.pyramids import find_pyramid, level_encodings
from e2e_abmilx.slides.resolution import Stated, stated_by_tiff
from e2e_abmilx.slides.tiff_reader import TiffReader, is_damage, open_tiff

# Formats that are plain pages of tiles. In all others OpenSlide also handles overlapping tiles, gaps and true sizes.
_PLAIN = ("generic-tiff", "aperio")

# tifffile's flags of such formats; a file that has one but that OpenSlide does not recognise is damaged or mislabelled.
_SPECIAL = {"bif": "Ventana BIF", "scn": "Leica SCN", "philips": "Philips TIFF"}
_NDPI = 65420  # a tag that only Hamamatsu files have

#: A reader of a slide.
Reader = TiffReader | OpenSlideReader


def open_reader(path: Path) -> Reader:
    """Open a slide with the reader that is trusted with it.

    Raises:
        SlideError: There is none, or it is unclear which image of the file is the slide.
    """
    vendor = detect_vendor(path)
    if vendor not in (*_PLAIN, None):
        return _open_by_openslide(path, f"its format is {vendor}")
    try:
        tiff = open_tiff(path)
    except Exception as error:  # tifffile raises many kinds on damaged files
        raise SlideError(f"{path} cannot be opened as a slide ({type(error).__name__}: {error})") from error
    if tiff is None:
        if vendor is None:
            raise SlideError(f"{path} cannot be opened as a slide: it is neither a TIFF nor in a format of OpenSlide")
        return _open_by_openslide(path, "it is not a TIFF")
    try:
        return _open_plain(path, tiff)
    except BaseException:
        tiff.close()
        raise


def open_second_reader(path: Path, first: Reader) -> Reader | None:
    """Open the other reader of a slide, which checks the first; None if there is no other."""
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
    """Open a TIFF of plain pages, with OpenSlide where tifffile is not trusted or cannot decode it."""
    special = [name for flag, name in _SPECIAL.items() if getattr(tiff, f"is_{flag}")]
    special += ["Hamamatsu NDPI"] if _NDPI in tiff.pages.first.tags else []
    if special:
        raise SlideError(
            f"{path} states that it is a {special[0]}, but OpenSlide cannot read it as one; export it again"
        )
    try:
        image = find_pyramid(tiff)
        encodings = level_encodings(image)
        readers = set(map(trusted_reader, encodings))
        stated = stated_by_tiff(tiff, image)
    except SlideError as error:
        raise SlideError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # tifffile raises many kinds on damaged files
        raise SlideError(f"{path} cannot be opened as a slide ({type(error).__name__}: {error})") from error
    why = f"tifffile is not trusted with its encoding ({encodings[0]})"
    if readers == {TIFFFILE}:
        reader = TiffReader(tiff, image, stated)
        why = _reason_against(reader, path)
        if not why:
            return reader
    size = (image.keyframe.imagewidth, image.keyframe.imagelength)
    other = _open_by_openslide(path, why, stated)
    if other.level_dimensions[0] != size:
        shown = " × ".join(map(str, other.level_dimensions[0]))
        other.close()
        raise SlideError(
            f"{path} cannot be read: {why}, and OpenSlide takes another image of the file for the slide, with {shown}"
            f" pixels instead of {size[0]} × {size[1]}; write the slide into a separate file"
        )
    tiff.close()
    return other


def _reason_against(reader: TiffReader, path: Path) -> str:
    """Return why OpenSlide should read the slide instead; empty if tifffile should."""
    failure = reader.failure()
    if failure is not None and not is_damage(failure):
        return f"tifffile cannot decode it ({type(failure).__name__}: {failure})"
    # In an Aperio slide OpenSlide reads the finer level in place of missing tiles.
    if reader.lacks_coarse_tiles() and detect_vendor(path) == "aperio":
        return "it leaves out tiles of its coarser levels"
    return ""


def _open_by_openslide(path: Path, why: str, stated: Stated | None = None) -> OpenSlideReader:
    """Open a slide with OpenSlide, and check that it can decode a pixel."""
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
