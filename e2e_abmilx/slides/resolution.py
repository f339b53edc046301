"""How many µm a pixel has, and who says so."""

import logging
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import tifffile

from e2e_abmilx.slides.slide_error import SlideError

logger = logging.getLogger(__name__)

#: Level-0 resolutions outside this range, in µm/px, are screen or print dpi (72 dpi is 352.8) and not believed.
PLAUSIBLE_MPP = (0.02, 20.0)

#: Pixels whose sides differ by more than this share are not taken for squares.
SQUARE = 0.05

#: Two statements of µm/px that differ by more than this share contradict each other.
CONTRADICTION = 0.02

_POWER_TIMES_MPP = 10.0  # a 40x objective samples about 0.25 µm/px, a 20x one 0.5

_TAG_UNITS = {2: 25400.0, 3: 10000.0, 4: 1000.0, 5: 1.0}  # µm of TIFF's ResolutionUnit: inch, cm, mm, µm

# µm of the units that OME-XML may state; µ has two code points.
_OME_UNITS = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4, "\u212b": 1e-4,
    "pm": 1e-6, "in": 25400.0, "thou": 25.4, "li": 25400 / 12, "pt": 25400 / 72,
}  # fmt: skip


class Resolution(NamedTuple):
    """Level-0 resolution of a slide.

    Attributes:
        mpp: µm per pixel.
        source: Where the number came from, such as ``"aperio header"`` or ``"assumed"``.
    """

    mpp: float
    source: str


class Stated(NamedTuple):
    """What a slide says of its own resolution.

    Attributes:
        x: µm per pixel along a row; None where it says nothing.
        y: µm per pixel along a column; None where it says nothing.
        source: Where that is said.
        power: Magnification of its objective; None where it says nothing.
    """

    x: float | None = None
    y: float | None = None
    source: str = ""
    power: float | None = None

    @property
    def mpp(self) -> float | None:
        """µm per pixel, the geometric mean of both directions; None where it says nothing that can be believed."""
        if self.x is None or self.y is None:
            return None
        mpp = math.sqrt(self.x * self.y)
        return mpp if PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1] else None


def decide(stated: Stated, path: Path, assume_mpp: float | None, override_mpp: float | None) -> Resolution:
    """Level-0 µm/px: an override, the slide's own, its objective power, or what is assumed, in this order.

    Args:
        stated: What the slide says.
        path: The slide, for messages.
        assume_mpp: µm/px of a slide that states neither µm/px nor an objective.
        override_mpp: µm/px to believe whatever the slide says.

    Raises:
        SlideError: Nothing states the resolution and nothing is assumed, or pixels are not square.
    """
    if override_mpp is not None:
        return Resolution(override_mpp, _override_source(stated, path, override_mpp))
    if stated.mpp is not None and stated.x and stated.y:
        if max(stated.x, stated.y) > min(stated.x, stated.y) * (1 + SQUARE):
            raise SlideError(
                f"{path} has pixels that are not square: {stated.x:.4g} µm wide and {stated.y:.4g} µm high"
                f" ({stated.source}), which differ by more than {SQUARE:.0%}; resample it, or, where the header is wrong,"
                " state its µm/px in the column mpp of a slide list"
            )
        return Resolution(stated.mpp, stated.source)
    if stated.power is not None and PLAUSIBLE_MPP[0] <= _POWER_TIMES_MPP / stated.power <= PLAUSIBLE_MPP[1]:
        mpp = _POWER_TIMES_MPP / stated.power
        logger.warning("%s states no µm/px: taking %.4g from its %gx objective", path, mpp, stated.power)
        return Resolution(mpp, f"objective power {stated.power:g}x")
    if assume_mpp is not None:
        return Resolution(assume_mpp, "assumed")
    said = "does not state its µm/px,"
    if stated.x is not None and stated.y is not None:
        said = f"states {math.sqrt(stated.x * stated.y):.4g} µm/px, which is screen dpi,"
    raise SlideError(
        f"{path} {said} and has no objective power; say it with assume_mpp, for example 0.25 for a 40x scan"
    )


def _override_source(stated: Stated, path: Path, override_mpp: float) -> str:
    own = stated.mpp
    if own is None or abs(own / override_mpp - 1) <= CONTRADICTION:
        return "override"
    logger.warning(
        "%s states %.4g µm/px (%s), and the slide list %.4g: the list is believed",
        path,
        own,
        stated.source,
        override_mpp,
    )
    return "override"


def stated_by_openslide(properties: Mapping[str, str]) -> Stated:
    """What OpenSlide found in a slide."""
    vendor = properties.get("openslide.vendor", "")
    x, y = number(properties.get("openslide.mpp-x")), number(properties.get("openslide.mpp-y"))
    source = "TIFF resolution tags" if vendor == "generic-tiff" else f"{vendor} header"
    return Stated(x, y, source, number(properties.get("openslide.objective-power")))


def stated_by_tiff(tiff: tifffile.TiffFile, image: tifffile.TiffPageSeries) -> Stated:
    """What a TIFF says of the image that is the slide: its OME-XML, its Aperio header, or its tags."""
    page = image.keyframe
    header = _aperio_header(page)
    tags = _stated_by_tags(page)
    if header is not None:
        mpp, power = number(header.get("MPP")), number(header.get("AppMag"))
        return (Stated(mpp, mpp, "aperio header") if mpp else tags)._replace(power=power)
    ome = _stated_by_ome(tiff.ome_metadata, page.imagewidth, page.imagelength)
    if ome.x is None or ome.y is None or ome.mpp is None:
        return tags._replace(power=ome.power)
    if ome.mpp and tags.mpp and abs(ome.mpp / tags.mpp - 1) > CONTRADICTION:
        logger.warning(
            "%s states %.4g µm/px in its OME-XML and %.4g in its TIFF tags: OME-XML is believed",
            tiff.filehandle.path,
            ome.mpp,
            tags.mpp,
        )
    return ome


def number(text: object) -> float | None:
    """A positive number, with a decimal point or a decimal comma; None for anything else."""
    digits = str(text).strip()
    if re.fullmatch(r"[+-]?\d*,\d+", digits):
        digits = digits.replace(",", ".")
    try:
        value = float(digits)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _aperio_header(page: Any) -> dict[str, str] | None:  # noqa: ANN401 - a page of untyped tifffile
    """Names and values of an Aperio description; None where it is none."""
    text = page.tags.valueof("ImageDescription", "")
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if not str(text).startswith("Aperio"):
        return None
    fields = (field.partition("=") for field in str(text).split("|"))
    return {name.strip(): value.strip() for name, equals, value in fields if equals}


def _stated_by_tags(page: Any) -> Stated:  # noqa: ANN401
    unit = _TAG_UNITS.get(int(page.tags.valueof("ResolutionUnit", 1)))
    try:
        x, y = (Fraction(*page.tags.valueof(name)) for name in ("XResolution", "YResolution"))
        if unit is None:
            return Stated()
        return Stated(float(unit / x), float(unit / y), "TIFF resolution tags")
    except (TypeError, ValueError, ArithmeticError):
        return Stated()


def _stated_by_ome(xml: object, width: int, height: int) -> Stated:
    """What OME-XML says of the image of this size; nothing where two such images contradict each other."""
    try:
        root = ElementTree.fromstring(str(xml or ""))
    except ElementTree.ParseError:
        return Stated()
    powers = {number(each.get("NominalMagnification")) for each in root.findall(".//{*}Objective")} - {None}
    power = powers.pop() if len(powers) == 1 else None
    sizes = set()
    for pixels in root.findall(".//{*}Image/{*}Pixels"):
        if (pixels.get("SizeX"), pixels.get("SizeY")) == (str(width), str(height)):
            sizes.add((_ome_length(pixels, "X"), _ome_length(pixels, "Y")))
    x, y = sizes.pop() if len(sizes) == 1 else (None, None)
    return Stated(x, y, "OME-XML", power)


def _ome_length(pixels: ElementTree.Element, axis: str) -> float | None:
    """µm along a pixel; None where that is not stated, or in a unit that is no length."""
    length = number(pixels.get(f"PhysicalSize{axis}"))
    unit = _OME_UNITS.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    return length * unit if length is not None and unit is not None else None
