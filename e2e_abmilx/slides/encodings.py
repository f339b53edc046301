"""How a TIFF stores its pixels, and which reader is trusted to decode that: an explicit table, proven by the tests."""

from typing import Any, NamedTuple

import tifffile

from e2e_abmilx.errors import SlideError

#: The two readers.
TIFFFILE, OPENSLIDE = "tifffile", "OpenSlide"

#: TIFF compressions whose segments are JPEG streams.
JPEG_COMPRESSIONS = (6, 7, 33007, 34892)

_ALPHA = {0: "unspecified", 1: "associated", 2: "unassociated"}
_FORMATS = {1: "uint", 2: "int", 3: "float", 4: "void", 5: "complex int", 6: "complex float"}
_GREY = ("minisblack", "miniswhite")

# Lossless compressions, whose samples mean what the photometric interpretation says.
_PLAIN = ("none", "lzw", "deflate", "adobe_deflate", "packbits", "zstd")
_STREAMS = ("jpeg", "webp", "jpeg2000", "aperio_jp2000_rgb")  # streams that state their own colour space


class Encoding(NamedTuple):
    """How one image of a TIFF stores its pixels.

    Attributes:
        photometric: Meaning of the samples: ``"rgb"``, ``"ycbcr"``, ``"separated"`` (CMYK) ….
        compression: Name of the compression, or its number if it has no name.
        planar: ``"contiguous"``: the samples of a pixel are stored together; ``"separate"``: one plane per sample;
            ``"pages"``: one image per sample.
        sample_format: ``"uint"``, ``"int"``, ``"float"`` ….
        bits: Bits per sample.
        samples: Samples per pixel, including alpha.
        alpha: ``"none"``, ``"associated"``, ``"unassociated"``, or ``"unspecified"``: an extra sample that the file does
            not explain.
        layout: ``"tiles"`` or ``"strips"``.
        oddity: Anything else that is unusual; empty in most files.
    """

    photometric: str
    compression: str
    planar: str = "contiguous"
    sample_format: str = "uint"
    bits: int = 8
    samples: int = 3
    alpha: str = "none"
    layout: str = "tiles"
    oddity: str = ""

    def __str__(self) -> str:
        planar = {"separate": "one plane per sample", "pages": "one page per channel"}.get(self.planar)
        alpha = "" if self.alpha == "none" else f"{self.alpha} alpha"
        words = (self.photometric, self.compression, self.layout, planar, alpha, self.oddity)
        return ", ".join(filter(None, words))


def _trusted_encodings() -> dict[Encoding, str]:
    """Return each encoding that a reader is trusted with, and that reader."""
    table = {}
    for layout in ("tiles", "strips"):
        for compression in _PLAIN:
            for alpha in ("none", "associated", "unassociated"):
                samples = 3 + (alpha != "none")
                # No independent reader decodes separate planes with alpha in strips, so nothing could prove them.
                is_proven = alpha == "none" or layout == "tiles"
                for planar in ("contiguous", "separate") if is_proven else ("contiguous",):
                    own = Encoding("rgb", compression, planar, samples=samples, alpha=alpha, layout=layout)
                    table[own] = TIFFFILE
            table[Encoding("minisblack", compression, "pages", layout=layout)] = TIFFFILE
        for compression in _STREAMS:
            table[Encoding("rgb", compression, layout=layout)] = TIFFFILE
        table[Encoding("rgb", "jpeg", "separate", layout=layout)] = TIFFFILE
        table[Encoding("ycbcr", "jpeg", layout=layout)] = TIFFFILE
    for compression in _PLAIN:
        for planar in ("contiguous", "separate"):
            table[Encoding("ycbcr", compression, planar)] = OPENSLIDE
            table[Encoding("separated", compression, planar, samples=4)] = OPENSLIDE
    table[Encoding("rgb", "aperio_jp2000_ycbc")] = OPENSLIDE
    table[Encoding("ycbcr", "aperio_jp2000_ycbc")] = OPENSLIDE
    return table


#: Each encoding that is read, and the reader that is trusted with it. All others are refused.
TRUSTED = _trusted_encodings()


def encoding_of(page: Any, planar: str | None = None) -> Encoding:  # noqa: ANN401 - a page of untyped tifffile
    """Return how a page of a TIFF stores its pixels.

    ``planar`` is ``"pages"`` if the page holds one of three channels, which the page itself does not state.
    """
    compression = _name(tifffile.COMPRESSION, page.compression)
    photometric = _name(tifffile.PHOTOMETRIC, page.photometric)
    extra = tuple(int(each) for each in page.extrasamples)
    samples = page.samplesperpixel if planar is None else 3
    alpha = "none" if not extra else _ALPHA.get(extra[0], "unspecified") if len(extra) == 1 else "unspecified"
    if not extra and photometric in ("rgb", "ycbcr") and samples > 3:
        alpha = "unspecified"
    separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and samples > 1
    return Encoding(
        photometric,
        compression,
        planar or ("separate" if separate else "contiguous"),
        _FORMATS.get(_common_value(page.sampleformat), str(page.sampleformat)),
        _common_value(page.bitspersample),
        samples,
        alpha,
        "tiles" if page.is_tiled else "strips",
        _oddity(page),
    )


def trusted_reader(encoding: Encoding) -> str:
    """Return the reader that decodes an encoding correctly.

    Raises:
        SlideError: No reader is known to; the message describes the encoding.
    """
    reader = TRUSTED.get(encoding)
    if reader is None:
        raise SlideError(f"{_objection(encoding)}; convert it to tiled RGB with 8 bits per channel")
    return reader


def _objection(encoding: Encoding) -> str:
    """Return why an encoding is not read."""
    if encoding.sample_format != "uint":
        return f"its samples are of type {encoding.sample_format}, {encoding.bits} bits, which is not read"
    if encoding.bits != 8:
        return f"its samples have {encoding.bits} bits, and only 8 are read"
    if encoding.photometric == "palette":
        return "it is a palette image, whose samples are indices into a colour table, which is not read"
    if encoding.photometric in _GREY and encoding.planar != "pages":
        return f"it is grey ({encoding.photometric}, {encoding.samples} sample per pixel), which is not read"
    if encoding.photometric.endswith("lab"):
        return f"its colours are {encoding.photometric} (CIE L*a*b*), which readers convert differently"
    if encoding.alpha == "unspecified":
        return (
            f"it does not state whether the last of its {encoding.samples} samples per pixel is transparency or something"
            " else (ExtraSamples), and readers disagree"
        )
    if encoding.oddity.startswith("orientation"):
        return f"it states {encoding.oddity}, a rotated or mirrored image, on which readers disagree"
    return f"its encoding ({encoding}) is not among those proven to be read correctly (docs/formats.md)"


def _oddity(page: Any) -> str:  # noqa: ANN401
    """Return what is unusual about a page; empty for most pages."""
    orientation = page.tags.valueof("Orientation", 1)
    compression = int(page.compression)
    found = []
    if int(orientation) not in (0, 1):
        found.append(f"orientation {int(orientation)}")
    if page.fillorder != 1:
        found.append(f"fill order {int(page.fillorder)}")
    if page.predictor not in (1, 2):
        found.append(f"predictor {int(page.predictor)}")
    if page.imagedepth != 1 or page.tiledepth > 1:
        found.append(f"depth {page.imagedepth}")
    contiguous = page.planarconfig == tifffile.PLANARCONFIG.CONTIG
    is_rgb = page.photometric == tifffile.PHOTOMETRIC.RGB
    if compression in JPEG_COMPRESSIONS and is_rgb and contiguous and page.is_jfif:
        found.append("JFIF streams, which are YCbCr")
    is_ycbcr = page.photometric == tifffile.PHOTOMETRIC.YCBCR
    if is_ycbcr and _name(tifffile.COMPRESSION, compression) in _PLAIN:
        sampling = page.tags.valueof("YCbCrSubSampling", (2, 2))
        if tuple(sampling) != (1, 1):
            found.append(f"colours subsampled by {sampling[0]} × {sampling[1]}")
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED and page.tags.valueof("InkSet", 1) != 1:
        found.append("inks other than CMYK")
    return ", ".join(found)


def _name(names: Any, number: int) -> str:  # noqa: ANN401 - an enumeration
    """Return the name of a number in lower case, or the number itself if it has no name."""
    try:
        return str(names(number).name).lower()
    except ValueError:
        return str(int(number))


def _common_value(value: Any) -> int:  # noqa: ANN401 - a number, or one per sample
    """Return the value that all samples have; -1 if they differ."""
    if isinstance(value, tuple | list):
        return int(value[0]) if len(set(value)) == 1 else -1
    return int(value)
