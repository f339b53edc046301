"""How a TIFF stores its pixels, and which reader is trusted with that: an explicit table, proven by the tests."""

from typing import Any, NamedTuple

import tifffile

from e2e_abmilx.slides.slide_error import SlideError

#: The two readers.
TIFFFILE, OPENSLIDE = "tifffile", "OpenSlide"

#: TIFF compressions whose segments are JPEG streams.
JPEG_COMPRESSIONS = (6, 7, 33007, 34892)

_ALPHA = {0: "unspecified", 1: "associated", 2: "unassociated"}
_FORMATS = {1: "uint", 2: "int", 3: "float", 4: "void", 5: "complex int", 6: "complex float"}
_GREY = ("minisblack", "miniswhite")

# Compressions that give back each byte as it was, and whose samples mean what the photometric interpretation says.
_PLAIN = ("none", "lzw", "deflate", "adobe_deflate", "packbits", "zstd")
_STREAMS = ("jpeg", "webp", "jpeg2000", "aperio_jp2000_rgb")  # they know of colours themselves


class Encoding(NamedTuple):
    """How one image of a TIFF stores its pixels.

    Attributes:
        photometric: What the samples mean: ``"rgb"``, ``"ycbcr"``, ``"separated"`` (CMYK) ….
        compression: The name of the compression, or its number where it has none.
        planar: ``"contiguous"``: the samples of a pixel lie together; ``"separate"``: one plane a sample;
            ``"pages"``: one image a sample.
        sample_format: ``"uint"``, ``"int"``, ``"float"`` ….
        bits: Bits a sample.
        samples: Samples a pixel, alpha among them.
        alpha: ``"none"``, ``"associated"``, ``"unassociated"``, or ``"unspecified"``: an extra sample of which the file
            does not say what it is.
        layout: ``"tiles"`` or ``"strips"``.
        oddity: What else is unusual about it; mostly nothing.
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
        planar = {"contiguous": "", "separate": ", plane by plane", "pages": ", one page a channel"}[
            self.planar
        ]
        alpha = "" if self.alpha == "none" else f", {self.alpha} alpha"
        oddity = f", {self.oddity}" if self.oddity else ""
        return f"{self.photometric}, {self.compression}, {self.layout}{planar}{alpha}{oddity}"


def _combinations() -> dict[Encoding, str]:
    """Each combination that a reader is trusted with, and which reader that is."""
    table = {}
    for layout in ("tiles", "strips"):
        for compression in _PLAIN:
            for alpha in ("none", "associated", "unassociated"):
                samples = 3 + (alpha != "none")
                for planar in _planars(alpha, layout):
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


def _planars(alpha: str, layout: str) -> tuple[str, ...]:
    # No independent reader takes planes with alpha in strips, so that nothing proves them.
    return ("contiguous",) if alpha != "none" and layout == "strips" else ("contiguous", "separate")


#: Each combination that is read, and the reader that is trusted with it. Everything else is refused.
TRUSTED = _combinations()


def encoding_of(page: Any, planar: str | None = None) -> Encoding:  # noqa: ANN401 - a page of untyped tifffile
    """How a page of a TIFF stores its pixels.

    Args:
        page: The page.
        planar: What the page does not know: ``"pages"`` where it holds one of three channels.
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
        _FORMATS.get(_one(page.sampleformat), str(page.sampleformat)),
        _one(page.bitspersample),
        samples,
        alpha,
        "tiles" if page.is_tiled else "strips",
        _oddity(page),
    )


def trusted_reader(encoding: Encoding) -> str:
    """The reader that decodes this rightly.

    Raises:
        SlideError: None is known to; the message says in words what the encoding is.
    """
    reader = TRUSTED.get(encoding)
    if reader is None:
        raise SlideError(_refusal(encoding))
    return reader


def _refusal(encoding: Encoding) -> str:
    cure = "convert it to RGB of 8 bits a channel, as tiles"
    if encoding.sample_format != "uint":
        return f"its samples are of the type {encoding.sample_format}, {encoding.bits} bits, which are not read; {cure}"
    if encoding.bits != 8:
        return f"its samples have {encoding.bits} bits, which are not read: only 8 bits are; {cure}"
    if encoding.photometric == "palette":
        return f"it is a palette image: its samples number colours of a table, which is not read; {cure}"
    if encoding.photometric in _GREY and encoding.planar != "pages":
        return f"it is grey ({encoding.photometric}, {encoding.samples} sample a pixel), which is not read; {cure}"
    if encoding.photometric.endswith("lab"):
        return (
            f"its colours are {encoding.photometric} (CIE L*a*b*), which readers convert differently; {cure}"
        )
    if encoding.alpha == "unspecified":
        return (
            f"of its {encoding.samples} samples a pixel it does not say what the last is, transparency or something"
            f" else (ExtraSamples), and readers disagree; {cure}"
        )
    if encoding.oddity.startswith("orientation"):
        return f"it states {encoding.oddity}: its pixels are to be turned or mirrored, on which readers disagree; {cure}"
    return f"its encoding ({encoding}) is not among those that are proven to be read rightly (docs/formats.md); {cure}"


def _oddity(page: Any) -> str:  # noqa: ANN401
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
        found += (
            [] if tuple(sampling) == (1, 1) else [f"colours of every {sampling[0]} × {sampling[1]} pixels"]
        )
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED and page.tags.valueof("InkSet", 1) != 1:
        found.append("inks that are not CMYK")
    return ", ".join(found)


def _name(names: Any, number: int) -> str:  # noqa: ANN401 - an enumeration
    try:
        return str(names(number).name).lower()
    except ValueError:
        return str(int(number))


def _one(value: Any) -> int:  # noqa: ANN401 - a number, or one a sample
    if isinstance(value, tuple | list):
        return int(value[0]) if len(set(value)) == 1 else -1
    return int(value)
