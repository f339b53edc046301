"""µm per pixel of a slide: the values that its file states, and the one that is believed."""

import logging
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import tifffile

from e2e_abmilx.errors import SlideError

logger = logging.getLogger(__name__)

#: Level-0 µm per pixel outside this range is screen or print dpi (72 dpi is 352.8) and not believed.
PLAUSIBLE_MPP = (0.02, 20.0)

#: Largest relative difference between the sides of pixels that count as square.
SQUARE_TOLERANCE = 0.05

#: Largest relative difference between two values of µm per pixel that do not contradict each other.
MPP_TOLERANCE = 0.02

_POWER_TIMES_MPP = 10.0  # a 40x objective samples about 0.25 µm/px, a 20x one 0.5

_TAG_UNITS = {2: 25400.0, 3: 10000.0, 4: 1000.0, 5: 1.0}  # µm per TIFF ResolutionUnit: inch, cm, mm, µm

# µm per unit of OME-XML; µ and Å have two code points each.
_OME_UNITS = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4, "\u212b": 1e-4,
    "pm": 1e-6, "in": 25400.0, "thou": 25.4, "li": 25400 / 12, "pt": 25400 / 72,
}  # fmt: skip


class Resolution(NamedTuple):
    """Level-0 µm per pixel of a slide, and the origin of the number, such as ``"aperio header"`` or ``"assumed"``."""

    mpp: float
    source: str


class Stated(NamedTuple):
    """The resolution that a slide's file states.

    Attributes:
        x: µm per pixel along a row; None if not stated.
        y: µm per pixel along a column; None if not stated.
        source: Where it is stated.
        power: Magnification of the objective; None if not stated.
    """

    x: float | None = None
    y: float | None = None
    source: str = ""
    power: float | None = None

    @property
    def mpp(self) -> float | None:
        """µm per pixel, the geometric mean of both directions; None if absent or implausible."""
        if self.x is None or self.y is None:
            return None
        mpp = math.sqrt(self.x * self.y)
        return mpp if PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1] else None


def decide_resolution(stated: Stated, path: Path, assume_mpp: float | None, override_mpp: float | None) -> Resolution:
    """Choose the µm per pixel of the slide at ``path`` as :meth:`Slide.resolution` describes.

    Raises:
        SlideError: See :meth:`Slide.resolution`.
    """
    if override_mpp is not None:
        if stated.mpp is not None and abs(stated.mpp / override_mpp - 1) > MPP_TOLERANCE:
            text = "%s states %.4g µm/px (%s), but the slide list %.4g: using the slide list"
            logger.warning(text, path, stated.mpp, stated.source, override_mpp)
        return Resolution(override_mpp, "override")
    if stated.mpp is not None and stated.x and stated.y:
        if max(stated.x, stated.y) > min(stated.x, stated.y) * (1 + SQUARE_TOLERANCE):
            raise SlideError(
                f"{path} has pixels that are not square: {stated.x:.4g} µm wide and {stated.y:.4g} µm high"
                f" ({stated.source}), which differ by more than {SQUARE_TOLERANCE:.0%}; resample it or, if the header is"
                " wrong, state its µm/px in the column mpp of a slide list"
            )
        return Resolution(stated.mpp, stated.source)
    if stated.power is not None and PLAUSIBLE_MPP[0] <= _POWER_TIMES_MPP / stated.power <= PLAUSIBLE_MPP[1]:
        mpp = _POWER_TIMES_MPP / stated.power
        logger.warning("%s states no µm/px; using %.4g from its %gx objective", path, mpp, stated.power)
        return Resolution(mpp, f"objective power {stated.power:g}x")
    if assume_mpp is not None:
        return Resolution(assume_mpp, "assumed")
    found = "does not state its µm/px"
    if stated.x is not None and stated.y is not None:
        found = f"states {math.sqrt(stated.x * stated.y):.4g} µm/px, which is screen dpi,"
    raise SlideError(f"{path} {found} and has no objective power; give assume_mpp, for example 0.25 for a 40x scan")


def stated_by_openslide(properties: Mapping[str, str]) -> Stated:
    """Return the resolution that OpenSlide finds in a slide."""
    vendor = properties.get("openslide.vendor", "")
    x, y = _parse_number(properties.get("openslide.mpp-x")), _parse_number(properties.get("openslide.mpp-y"))
    source = "TIFF resolution tags" if vendor == "generic-tiff" else f"{vendor} header"
    return Stated(x, y, source, _parse_number(properties.get("openslide.objective-power")))


def stated_by_tiff(tiff: tifffile.TiffFile, image: tifffile.TiffPageSeries) -> Stated:
    """Return the resolution that a TIFF states in its Aperio header, its OME-XML or its tags."""
    page = image.keyframe
    header = _aperio_header(page)
    tags = _stated_by_tags(page)
    if header is not None:
        mpp, power = _parse_number(header.get("MPP")), _parse_number(header.get("AppMag"))
        return (Stated(mpp, mpp, "aperio header") if mpp else tags)._replace(power=power)
    ome = _stated_by_ome(tiff.ome_metadata, page.imagewidth, page.imagelength)
    if ome.x is None or ome.y is None or ome.mpp is None:
        return tags._replace(power=ome.power)
    if tags.mpp and abs(ome.mpp / tags.mpp - 1) > MPP_TOLERANCE:
        text = "%s states %.4g µm/px in its OME-XML but %.4g in its TIFF tags: using OME-XML"
        logger.warning(text, tiff.filehandle.path, ome.mpp, tags.mpp)
    return ome


def _parse_number(text: object) -> float | None:
    """Read a positive number with a decimal point or a decimal comma; None for anything else."""
    digits = str(text).strip()
    if re.fullmatch(r"[+-]?\d*,\d+", digits):
        digits = digits.replace(",", ".")
    try:
        value = float(digits)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _aperio_header(page: Any) -> dict[str, str] | None:  # noqa: ANN401 - a page of untyped tifffile
    """Return the fields of an Aperio image description; None if it is something else."""
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
    """Return the resolution that OME-XML states of the images of this size, if they agree."""
    try:
        root = ElementTree.fromstring(str(xml or ""))
    except ElementTree.ParseError:
        return Stated()
    powers = {_parse_number(each.get("NominalMagnification")) for each in root.findall(".//{*}Objective")} - {None}
    power = powers.pop() if len(powers) == 1 else None
    sizes = set()
    for pixels in root.findall(".//{*}Image/{*}Pixels"):
        if (pixels.get("SizeX"), pixels.get("SizeY")) == (str(width), str(height)):
            sizes.add((_ome_length(pixels, "X"), _ome_length(pixels, "Y")))
    x, y = sizes.pop() if len(sizes) == 1 else (None, None)
    return Stated(x, y, "OME-XML", power)


def _ome_length(pixels: ElementTree.Element, axis: str) -> float | None:
    """Return µm per pixel; None if it is not stated or its unit is not a length."""
    length = _parse_number(pixels.get(f"PhysicalSize{axis}"))
    unit = _OME_UNITS.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    return length * unit if length is not None and unit is not None else None
