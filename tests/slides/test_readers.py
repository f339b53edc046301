"""Which reader reads a slide, and that OpenSlide's pixels are those of the file."""

import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from e2e_abmilx.slides import Slide, SlideError
from e2e_abmilx.slides.openslide_reader import OpenSlideReader
from e2e_abmilx.synthetic import draw_slide

SLIDE = draw_slide(seed=1, lesion_share=0.2, side=512)[0]


def _aperio_streams(pixels: np.ndarray, side: int = 128) -> list[bytes]:
    return [
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(pixels[y : y + side, x : x + side]),
            level=0,
            codecformat="j2k",
            reversible=True,
        )
        for y in range(0, pixels.shape[0], side)
        for x in range(0, pixels.shape[1], side)
    ]


def test_real_slides_are_read_by_tifffile_and_checked_by_openslide(shared: Path) -> None:
    paths = [shared / "data/slides/CMU-1-Small-Region.svs", shared / "data/slides/gastrectomy.svs"]
    for path in [*paths, *sorted((shared / "data/ucsb_breast/slides").iterdir())[:3]]:
        with Slide(path) as slide:
            assert slide.reader == "tifffile"
            other = slide.by_other_reader()
            assert other is not None
            assert other.reader == "OpenSlide"
            x, y = (side // 3 for side in slide.size)
            one, two = (each.read_level(0, x, y, 300, 200).astype(int) for each in (slide, other))
            assert np.abs(one - two).mean() < 1
            other.close()


def test_openslide_reads_levels_at_odd_ratios_without_blur(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fine, coarse = (rng.integers(0, 256, (side, side, 3), np.uint8) for side in (1024, 341))
    path = tmp_path / "odd.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(fine, tile=(256, 256), photometric="rgb", metadata=None)
        tiff.write(coarse, tile=(256, 256), photometric="rgb", subfiletype=1, metadata=None)
    with Slide(path, reader=OpenSlideReader(path)) as slide:
        for x, y in ((0, 0), (1, 2), (10, 100), (200, 255), (301, 7)):
            read = slide.read_level(1, x, y, 30, 40).astype(int)
            assert np.abs(read - coarse[y : y + 40, x : x + 30]).mean() < 1.5


def test_openslide_takes_over_where_tifffile_fails_later(tmp_path: Path) -> None:
    """A stream that the page does not announce: tifffile opens the file, and cannot decode a tile."""
    path = tmp_path / "one.svs"
    about = "Aperio Image Library v10\r\n512x512 J2K|AppMag = 20|MPP = 0.5"
    ycc = imagecodecs.jpeg2k_encode(SLIDE[:128, :128].copy(), level=0, codecformat="j2k", reversible=True)
    tifffile.imwrite(
        path, iter(_aperio_streams(SLIDE)), shape=SLIDE.shape, dtype=np.uint8, tile=(128, 128), photometric="rgb",
        compression=33005, description=about, metadata=None, software="",
    )  # fmt: skip
    with Slide(path) as slide:
        assert slide.reader == "tifffile"
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 128, 128), imagecodecs.jpeg2k_decode(ycc))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tifffile.TiffPage, "decode", property(lambda page: _decoder_that_is_missing))
        with Slide(path) as slide:
            assert slide.reader == "OpenSlide"
            np.testing.assert_array_equal(slide.read_level(0, 0, 0, 512, 512), SLIDE)


def _decoder_that_is_missing(*_: object, **__: object) -> object:
    raise ValueError("<COMPRESSION.APERIO_JP2000_RGB: 33005> requires the 'imagecodecs' package")


def test_damage_is_not_handed_to_openslide(shared: Path) -> None:
    """Its libjpeg would make grey of what is missing."""
    with Slide(shared / "data/slides/openslide_unreadable.svs") as slide:
        assert slide.reader == "tifffile"
        with pytest.raises(SlideError, match="breaks off"):
            slide.read_level(0, 0, 0, 16, 16)


def test_openslide_goes_on_after_a_damaged_tile(tmp_path: Path) -> None:
    path = tmp_path / "cmyk.tif"
    cmyk = 255 - np.dstack([SLIDE, np.full(SLIDE.shape[:2], 255, np.uint8)])
    tifffile.imwrite(
        path, cmyk, tile=(128, 128), compression="deflate", photometric="separated", metadata=None
    )
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0]
        tiff.filehandle.seek(page.dataoffsets[0])
        tiff.filehandle.write(bytes(page.databytecounts[0]))
    with Slide(path) as slide:
        assert slide.reader == "OpenSlide"
        for _ in range(2):
            with pytest.raises(SlideError, match="cannot be read at x 0"):
                slide.read_level(0, 0, 0, 64, 64)
        np.testing.assert_array_equal(slide.read_level(0, 128, 0, 384, 512), SLIDE[:, 128:])


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ((65420, 4, 1, 1, True), "Hamamatsu NDPI"),
        (
            (700, 1, None, b"<?xml version='1.0'?><Metadata><iScan Magnification='40'/></Metadata>", True),
            "Ventana BIF",
        ),
    ],
)
def test_formats_that_are_not_what_they_say(tmp_path: Path, flag: tuple[object, ...], words: str) -> None:
    if flag[2] is None:
        flag = (*flag[:2], len(flag[3]), *flag[3:])
    path = tmp_path / "one.tif"
    tifffile.imwrite(path, SLIDE, photometric="rgb", tile=(128, 128), metadata=None, extratags=[flag])
    with pytest.raises(SlideError, match=r"cannot be (read|opened)|OpenSlide cannot") as found:
        Slide(path)
    assert (
        words.split()[1].lower() in str(found.value).lower()
        or words.split()[0].lower() in str(found.value).lower()
    )


def test_renamed_slides_are_what_they_are(shared: Path, tmp_path: Path) -> None:
    shutil.copy(shared / "data/slides/CMU-1-Small-Region.svs", tmp_path / "one.ndpi")
    with Slide(tmp_path / "one.ndpi") as slide:
        assert slide.resolution() == (0.499, "aperio header")
