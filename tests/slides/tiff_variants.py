"""TIFFs in many encodings, written by tifffile from one picture, and independent readers of them."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
import openslide
import tifffile
from PIL import Image, ImageCms

WIDTH, HEIGHT = 200, 150
LOSSLESS = ("none", "lzw", "deflate", "adobe_deflate", "packbits", "zstd", "lzma")
LOSSY = ("jpeg", "webp", "jpeg2000", "aperio_jp2000_rgb", "aperio_jp2000_ycbc", "jpegxl", "jpegxr", "lerc", "png")
LAYOUTS = ("tile 64×96", "tile 256×256", "strips of 40 rows", "one strip")
ALPHAS = ("none", "associated", "unassociated", "unspecified")
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "float16", "float32", "float64", "bool")
PHOTOMETRICS = ("rgb", "ycbcr", "separated", "cielab", "icclab", "minisblack", "miniswhite", "palette")


class Variant(NamedTuple):
    """One way to store the picture."""

    photometric: str = "rgb"
    compression: str = "deflate"
    planar: str = "contig"
    dtype: str = "uint8"
    alpha: str = "none"
    byteorder: str = "<"
    layout: str = "tile 64×96"
    predictor: bool = False

    def __str__(self) -> str:
        return ", ".join(map(str, self))


def drawn() -> np.ndarray:
    """Return a smooth picture in the colours of tissue that looks different everywhere."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    red = 150 + 60 * np.sin(x / 23) * np.cos(y / 31)
    green = 110 + 60 * np.cos(x / 19 + y / 37)
    blue = 160 + 50 * np.sin(y / 17 - x / 41)
    return np.stack([red, green, blue], -1).round().astype(np.uint8)


def opacity() -> np.ndarray:
    """Return an alpha channel with a hole and a half transparent band, opaque elsewhere."""
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[20:60, 30:90] = 0
    alpha[90:110] = 128
    return alpha


def truth(variant: Variant) -> np.ndarray:
    """Return the expected pixels: the picture over white."""
    if variant.alpha not in ("associated", "unassociated"):
        return drawn()
    alpha = opacity()[..., None] / 255
    return (drawn() * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def all_variants() -> list[Variant]:
    """Return every reasonable combination with 8 bits, and others that must be refused."""
    eight = [
        Variant(photometric, compression, planar, "uint8", alpha, byteorder, layout, predictor)
        for photometric, compression, planar, alpha, byteorder, layout, predictor in itertools.product(
            PHOTOMETRICS, (*LOSSLESS, *LOSSY), ("contig", "separate", "pages"), ALPHAS, "<>", LAYOUTS, (False, True)
        )
        if _makes_sense(photometric, compression, planar, alpha, predictor)
    ]
    others = [
        Variant(photometric, compression, planar, dtype, "none", byteorder, layout)
        for photometric, compression, planar, dtype, byteorder, layout in itertools.product(
            ("rgb", "minisblack", "separated", "cielab"), ("none", "lzw", "deflate", "zstd"), ("contig", "separate"),
            DTYPES[1:], "<>", LAYOUTS[::2],
        )
        if _makes_sense(photometric, compression, planar, "none", predictor=False)
    ]  # fmt: skip
    return eight + others


def _makes_sense(photometric: str, compression: str, planar: str, alpha: str, predictor: bool) -> bool:
    has_planes = photometric not in ("minisblack", "miniswhite", "palette")
    if planar == "pages":
        return photometric == "minisblack" and alpha == "none" and compression in (*LOSSLESS, "jpeg")
    return (
        (planar == "contig" or has_planes)
        and (alpha == "none" or (has_planes and compression in (*LOSSLESS, "jpeg")))
        and (not predictor or (compression in LOSSLESS[1:] and compression != "packbits"))
        and not (compression in LOSSY[1:] and planar == "separate")
    )


def write(path: Path, variant: Variant) -> bool:
    """Write a variant; return False if that is impossible."""
    pixels = _samples(variant)
    how: dict[str, object] = {"photometric": variant.photometric, "metadata": None, "software": ""}
    how |= {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    if variant.planar == "pages":
        pixels = np.moveaxis(drawn(), -1, 0)
        how |= {"metadata": {"axes": "CYX"}, "ome": True}
    elif pixels.ndim == 3:
        how["planarconfig"] = variant.planar
        if variant.planar == "separate":
            pixels = np.moveaxis(pixels, -1, 0)
    if variant.alpha != "none":
        how["extrasamples"] = [ALPHAS.index(variant.alpha) % 3]
    if variant.photometric == "palette":
        how["colormap"] = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (3, 1))
    kind, _, size = variant.layout.partition(" ")
    if kind == "tile":
        how["tile"] = tuple(map(int, size.split("×")))
    else:
        how["rowsperstrip"] = 40 if kind == "strips" else HEIGHT
    if variant.predictor:
        how["predictor"] = True
    try:
        if variant.compression.startswith(("aperio", "webp", "jpeg2000")):
            _write_streams(path, variant, pixels, how)
            return True
        if variant.compression == "jpeg":
            how |= {"compressionargs": {"level": 98}}
            if variant.photometric == "ycbcr":
                how |= {"photometric": "rgb", "subsampling": (2, 2) if variant.byteorder == ">" else (1, 1)}
            elif variant.photometric == "rgb":
                how["compressionargs"] |= {"outcolorspace": "rgb"}
        if variant.compression != "none":
            how["compression"] = variant.compression
        tifffile.imwrite(path, pixels, byteorder=variant.byteorder, **how)
    except (ValueError, RuntimeError, TypeError, KeyError, NotImplementedError, StopIteration):
        path.unlink(missing_ok=True)
        return False
    return True


def _write_streams(path: Path, variant: Variant, pixels: np.ndarray, how: dict[str, object]) -> None:
    """Write segments that are encoded here, each as a separate stream."""
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise ValueError("streams of colours only")
    height, width = how.get("tile", (how.get("rowsperstrip"), WIDTH))
    padded = np.pad(pixels, ((0, -HEIGHT % height), (0, -WIDTH % width), (0, 0)), mode="edge")
    is_tiled = "tile" in how

    def streams() -> Iterator[bytes]:
        for top in range(0, HEIGHT, height):
            for left in range(0, WIDTH, width):
                bottom = top + height if is_tiled else min(top + height, HEIGHT)
                segment = np.ascontiguousarray(padded[top:bottom, left : left + width])
                if variant.compression == "webp":
                    yield imagecodecs.webp_encode(segment, lossless=True)
                else:
                    yield imagecodecs.jpeg2k_encode(segment, level=0, codecformat="j2k", mct=False, reversible=True)

    codes = {"webp": 50001, "jpeg2000": 34712, "aperio_jp2000_rgb": 33005, "aperio_jp2000_ycbc": 33003}
    how = {**how, "compression": codes[variant.compression]}
    if variant.compression.startswith("aperio"):
        how |= {"description": "Aperio Image Library v10\r\n200x150 J2K|AppMag = 20|MPP = 0.5"}
    if variant.planar == "separate":
        raise ValueError("streams hold all colours")
    tifffile.imwrite(path, streams(), shape=pixels.shape, dtype=np.uint8, byteorder=variant.byteorder, **how)


def _read_pages(path: Path) -> list[np.ndarray]:
    """Read three grey pages with Pillow."""
    planes = []
    with Image.open(path) as image:
        for number in range(3):
            image.seek(number)
            planes.append(np.asarray(image).astype(float))
    return planes


def _samples(variant: Variant) -> np.ndarray:
    """Return the samples of the picture, shape ``(H, W, S)`` or ``(H, W)``."""
    image = Image.fromarray(drawn())
    if variant.photometric in ("minisblack", "palette", "miniswhite"):
        samples = drawn()[..., 1]
    elif variant.photometric == "ycbcr" and variant.compression != "jpeg":
        samples = np.asarray(image.convert("YCbCr"))
    elif variant.photometric == "separated":
        samples = 255 - np.dstack([drawn(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    elif variant.photometric in ("cielab", "icclab"):
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        samples = np.asarray(ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB")))
    else:
        samples = drawn()
    if variant.compression == "aperio_jp2000_ycbc":
        samples = np.asarray(image.convert("YCbCr"))
    if variant.alpha != "none":
        alpha = opacity()
        if variant.alpha == "associated":
            samples = (samples * (alpha[..., None] / 255)).round().astype(np.uint8)
        samples = np.dstack([samples, alpha])
    return _as_type(samples, variant.dtype)


def _as_type(samples: np.ndarray, dtype: str) -> np.ndarray:
    match dtype:
        case "uint8":
            return samples
        case "bool":
            return samples > 127
        case "int8":
            return (samples.astype(int) - 128).astype(np.int8)
        case "uint16" | "uint32":
            return samples.astype(dtype) * 257
        case "int16":
            return samples.astype(np.int16)
        case _:
            return (samples / 255).astype(dtype)


def read_independently(path: Path) -> dict[str, np.ndarray]:
    """Read a file with OpenSlide, libtiff and the stream decoders of Pillow."""
    found = {}
    try:
        with openslide.OpenSlide(path) as slide:
            seen = np.asarray(slide.read_region((0, 0), 0, slide.dimensions)).astype(float)
            alpha = seen[..., 3:] / 255
            found["OpenSlide"] = seen[..., :3] * alpha + 255 * (1 - alpha)
    except openslide.OpenSlideError:
        pass
    try:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError("each page is only a part")
            white = Image.new("RGBA", image.size, "white")
            found["Pillow"] = np.asarray(Image.alpha_composite(white, image.convert("RGBA")))[..., :3].astype(float)
    except (OSError, ValueError, SyntaxError, RuntimeError, KeyError):
        pass
    if streams := _read_streams(path):
        found["Pillow, stream by stream"] = streams[0]
    return found


def _read_streams(path: Path) -> list[np.ndarray]:
    """Assemble the picture from streams, each decoded by Pillow as an image."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        if len(tiff.pages) == 3 and page.ndim == 2:
            return [np.dstack(_read_pages(path))]
        if int(page.compression) not in (50001, 34712, 33005) or page.planarconfig != 1:
            return []
        canvas = np.zeros((HEIGHT + 512, WIDTH + 512, 3))
        height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, WIDTH)
        columns = -(-WIDTH // width)
        for number, (offset, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
            tiff.filehandle.seek(offset)
            stream = np.asarray(Image.open(io.BytesIO(tiff.filehandle.read(size))).convert("RGB"))
            top, left = number // columns * height, number % columns * width
            canvas[top : top + stream.shape[0], left : left + stream.shape[1]] = stream
    return [canvas[:HEIGHT, :WIDTH]]
