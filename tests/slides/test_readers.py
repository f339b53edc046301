"""The choice between the two readers of a slide."""

import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from e2e_abmilx.slides import Slide, SlideError
from e2e_abmilx.synthetic import draw_slide

SLIDE = draw_slide(seed=1, lesion_fraction=0.2, side=512)[0]


def _aperio_streams(pixels: np.ndarray, side: int = 128) -> list[bytes]:
    return [
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(pixels[y : y + side, x : x + side]), level=0, codecformat="j2k", reversible=True
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


def test_openslide_takes_over_if_tifffile_cannot_decode_a_tile(tmp_path: Path) -> None:
    """tifffile opens the file, but cannot decode its streams."""
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
        patch.setattr(tifffile.TiffPage, "decode", property(lambda page: _missing_decoder))
        with Slide(path) as slide:
            assert slide.reader == "OpenSlide"
            np.testing.assert_array_equal(slide.read_level(0, 0, 0, 512, 512), SLIDE)


def _missing_decoder(*_: object, **__: object) -> object:
    raise ValueError("<COMPRESSION.APERIO_JP2000_RGB: 33005> requires the 'imagecodecs' package")


def test_damaged_slides_are_not_passed_to_openslide(shared: Path) -> None:
    """Its libjpeg would fill the missing pixels with grey."""
    with Slide(shared / "data/slides/openslide_unreadable.svs") as slide:
        assert slide.reader == "tifffile"
        with pytest.raises(SlideError, match="is cut off"):
            slide.read_level(0, 0, 0, 16, 16)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ((65420, 4, 1, 1, True), "Hamamatsu NDPI"),
        ((700, 1, None, b"<?xml version='1.0'?><Metadata><iScan Magnification='40'/></Metadata>", True), "Ventana BIF"),
    ],
)
def test_mislabelled_formats_are_refused(tmp_path: Path, flag: tuple[object, ...], words: str) -> None:
    if flag[2] is None:
        flag = (*flag[:2], len(flag[3]), *flag[3:])
    path = tmp_path / "one.tif"
    tifffile.imwrite(path, SLIDE, photometric="rgb", tile=(128, 128), metadata=None, extratags=[flag])
    with pytest.raises(SlideError, match=r"cannot be (read|opened)|OpenSlide cannot") as found:
        Slide(path)
    assert words.split()[1].lower() in str(found.value).lower() or words.split()[0].lower() in str(found.value).lower()


def test_the_suffix_does_not_decide_the_format(shared: Path, tmp_path: Path) -> None:
    shutil.copy(shared / "data/slides/CMU-1-Small-Region.svs", tmp_path / "one.ndpi")
    with Slide(tmp_path / "one.ndpi") as slide:
        assert slide.resolution() == (0.499, "aperio header")


def test_a_folder_is_not_a_slide(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="cannot be opened as a slide"):
        Slide(tmp_path)
