"""OpenSlide as a reader: sharp levels, and reading on after an error."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from e2e_abmilx.slides import Slide, SlideError
from e2e_abmilx.slides.openslide_reader import OpenSlideReader, detect_vendor
from e2e_abmilx.synthetic import draw_slide

SLIDE = draw_slide(seed=1, lesion_fraction=0.2, side=512)[0]


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


def test_openslide_reads_on_after_a_damaged_tile(tmp_path: Path) -> None:
    path = tmp_path / "cmyk.tif"
    cmyk = 255 - np.dstack([SLIDE, np.full(SLIDE.shape[:2], 255, np.uint8)])
    tifffile.imwrite(path, cmyk, tile=(128, 128), compression="deflate", photometric="separated", metadata=None)
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


def test_vendors_are_detected(shared: Path, tmp_path: Path) -> None:
    assert detect_vendor(shared / "data/slides/CMU-1-Small-Region.svs") == "aperio"
    (tmp_path / "text.svs").write_text("this is not a slide")
    assert detect_vendor(tmp_path / "text.svs") is None
    assert detect_vendor(tmp_path / "absent.svs") is None
