"""Missing and transparent pixels are background, never black."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from e2e_abmilx.slides import Slide
from e2e_abmilx.slides.background import WHITE, blank, composite, parse_colour
from e2e_abmilx.synthetic import draw_slide

SLIDE = draw_slide(seed=1, lesion_fraction=0.2, side=512)[0]


@pytest.mark.parametrize("text", ["", None, "#12", "white", "12345678"])
def test_invalid_colours_are_white(text: str | None) -> None:
    assert parse_colour(text) == WHITE
    assert parse_colour("F2f2EE") == (0xF2, 0xF2, 0xEE)


def test_transparent_pixels_are_composited_over_the_background() -> None:
    pixels = np.array([[[100, 50, 0], [100, 50, 0], [100, 50, 0]]], np.uint8)
    alpha = np.array([[0, 51, 255]], np.uint8)
    colour = (240, 230, 220)
    mixed = [[240, 230, 220], [212, 194, 176], [100, 50, 0]]
    np.testing.assert_array_equal(composite(pixels, alpha, colour, associated=False)[0], mixed)
    pixels = (pixels * (alpha[..., None] / 255)).round().astype(np.uint8)
    np.testing.assert_array_equal(composite(pixels, alpha, colour, associated=True)[0], mixed)


def test_blank_pixels_have_one_colour() -> None:
    pixels = blank(2, 3, (1, 2, 3))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, [[[1, 2, 3]] * 3] * 2)


@pytest.mark.parametrize("associated", [True, False])
@pytest.mark.parametrize("layout", [{"tile": (128, 128)}, {"rowsperstrip": 50}])
def test_transparent_black_is_white(tmp_path: Path, associated: bool, layout: dict[str, object]) -> None:
    clear = np.dstack([SLIDE, np.full(SLIDE.shape[:2], 255, np.uint8)])
    clear[:, 300:] = 0
    extra = "assocalpha" if associated else "unassalpha"
    tifffile.imwrite(tmp_path / "one.tif", clear, photometric="rgb", extrasamples=[extra], metadata=None, **layout)
    with Slide(tmp_path / "one.tif") as slide:
        read, thumbnail = slide.read_level(0, 0, 0, 512, 512), slide.thumbnail(128)
    np.testing.assert_array_equal(read[:, :300], SLIDE[:, :300])
    assert (read[:, 300:] == 255).all()
    assert (thumbnail[:, 77:] == 255).all()


@pytest.mark.parametrize(
    "how", [{"tile": (128, 128)}, {}, {"tile": (128, 128), "compression": "deflate", "photometric": "separated"}]
)
def test_pixels_beyond_the_edge_are_background(tmp_path: Path, how: dict[str, object]) -> None:
    pixels = SLIDE
    if how.get("photometric"):  # read by OpenSlide
        pixels = 255 - np.dstack([SLIDE, np.full(SLIDE.shape[:2], 255, np.uint8)])
    tifffile.imwrite(tmp_path / "one.tif", pixels, metadata=None, **{"photometric": "rgb", **how})
    padded = np.pad(SLIDE, ((100, 100), (100, 100), (0, 0)), constant_values=255)
    with Slide(tmp_path / "one.tif") as slide:
        for x, y, width, height in ((-100, -100, 712, 712), (500, 400, 100, 100), (-50, 20, 60, 30), (600, 600, 5, 5)):
            read = slide.read_level(0, x, y, width, height)
            seen = padded[max(y + 100, 0) : y + height + 100, max(x + 100, 0) : x + width + 100]
            np.testing.assert_array_equal(read, seen if seen.size else 255)
        assert (slide.read_level(0, 600, 600, 8, 8, shrink=2) == 255).all()


@pytest.mark.parametrize("how", [{}, {"compression": "deflate", "photometric": "separated"}])
def test_tiles_that_were_never_written_are_background(tmp_path: Path, how: dict[str, object]) -> None:
    pixels = SLIDE
    if how.get("photometric"):
        pixels = 255 - np.dstack([SLIDE, np.full(SLIDE.shape[:2], 255, np.uint8)])
    tifffile.imwrite(tmp_path / "one.tif", pixels, tile=(128, 128), metadata=None, **{"photometric": "rgb", **how})
    with tifffile.TiffFile(tmp_path / "one.tif", mode="r+b") as tiff:
        for tag in ("TileOffsets", "TileByteCounts"):
            entry = tiff.pages[0].tags[tag]
            entry.overwrite([0 if number % 4 == 1 else value for number, value in enumerate(entry.value)])
    with Slide(tmp_path / "one.tif") as slide:
        read = slide.read_level(0, 0, 0, 512, 512)
    assert (read[:, 128:256] == 255).all()
    np.testing.assert_array_equal(read[:, 256:], SLIDE[:, 256:])
