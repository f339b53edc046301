"""The image of a TIFF that is the slide: its largest tiled pyramid, wherever it is in the file."""

import re
from xml.etree import ElementTree

import tifffile

from e2e_abmilx.errors import SlideError
from e2e_abmilx.slides.encodings import Encoding, encoding_of, trusted_reader

# Another image with more than this fraction of the slide's pixels could be the slide itself.
_RIVAL = 0.25

_ASSOCIATED = ("Thumbnail", "Label", "Macro")  # tifffile's names of the other images of an Aperio slide
_CHANNELS = (("r", "red"), ("g", "green"), ("b", "blue"))
_COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def find_pyramid(tiff: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """Return the image of a TIFF that is the slide.

    Raises:
        SlideError: There is none, or several images may be the slide.
    """
    images = [each for each in tiff.series if each.size and each.keyframe is not None]
    if not images:
        raise SlideError("it holds no image")
    tiled = [each for each in images if each.keyframe.is_tiled]
    chosen = max(tiled or images, key=_area)
    rivals = [each for each in images if each is not chosen and _may_be_the_slide(each, chosen)]
    if rivals:
        sizes = " and ".join(_describe(each) for each in (chosen, *rivals))
        raise SlideError(
            f"it holds {len(rivals) + 1} images that may be the slide, {sizes}; write the right one into a separate file,"
            " or mark its smaller versions as reduced (NewSubfileType 1)"
        )
    return chosen


def level_encodings(image: tifffile.TiffPageSeries) -> list[Encoding]:
    """Return how each level of an image stores its pixels.

    Raises:
        SlideError: A level is not a flat image in one plane.
    """
    return [_flat_encoding(level) for level in image.levels]


def _flat_encoding(level: tifffile.TiffPageSeries) -> Encoding:
    pages, axes = len(level.pages), level.axes
    present = [page for page in level.pages if page is not None]
    if len(present) < pages:
        raise SlideError(f"it lacks some of its {pages} pages (is it one of several files of a slide?)")
    if pages == 1 and axes in ("YXS", "SYX", "YX"):
        return encoding_of(level.keyframe)
    if axes == "CYX" and pages == 3 and level.shape[0] == 3:
        encoding = encoding_of(level.keyframe, "pages")
        if all(encoding_of(page.keyframe, "pages") == encoding for page in present):
            _refuse_other_channels(level)
            return encoding
    trusted_reader(encoding_of(level.keyframe))  # an encoding that is refused is the more helpful error
    raise SlideError(
        f"it holds {pages} images of one size (axes {axes}, shape {'×'.join(map(str, level.shape))}), as in a stack of"
        " focal planes, times or channels; write the one that is the slide into a separate file"
    )


def _refuse_other_channels(level: tifffile.TiffPageSeries) -> None:
    """Refuse three channels that OME-XML does not describe as red, green and blue."""
    xml = level.keyframe.parent.ome_metadata
    try:
        root = ElementTree.fromstring(str(xml or "<none/>"))
    except ElementTree.ParseError as error:
        raise SlideError(f"its OME-XML cannot be read ({error})") from error
    for number, channel in enumerate(root.findall(".//{*}Pixels/{*}Channel")):
        name, colour = channel.get("Name", ""), channel.get("Color")
        is_other = bool(name) and not re.fullmatch(r"(channel|c|ch)?[ :_]*\d+", name.lower())
        expected = number % 3
        if is_other and name.lower() not in _CHANNELS[expected]:
            raise SlideError(f"its channels are not red, green and blue: channel {number} is named {name!r}")
        if colour and _rgb(colour) not in (_COLOURS[expected], (255, 255, 255), (0, 0, 0)):
            raise SlideError(f"its channels are not red, green and blue: channel {number} has the colour {colour}")


def _rgb(colour: str) -> tuple[int, int, int] | None:
    """Return red, green and blue of OME's signed RGBA number."""
    try:
        number = int(colour) & 0xFFFFFFFF
    except ValueError:
        return None
    return number >> 24, number >> 16 & 255, number >> 8 & 255


def _area(image: tifffile.TiffPageSeries) -> int:
    return int(image.keyframe.imagewidth) * int(image.keyframe.imagelength)


def _may_be_the_slide(image: tifffile.TiffPageSeries, chosen: tifffile.TiffPageSeries) -> bool:
    if image.name in _ASSOCIATED and image.kind == "svs":
        return _area(image) > _area(chosen)
    if image.keyframe.is_reduced or image.keyframe.is_subifd:
        return False
    return _area(image) > _RIVAL * _area(chosen)


def _describe(image: tifffile.TiffPageSeries) -> str:
    page = image.keyframe
    return f"{page.imagewidth} × {page.imagelength} ({'tiles' if page.is_tiled else 'strips'})"
