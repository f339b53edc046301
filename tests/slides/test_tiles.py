"""Tiles and strips of a TIFF: other layouts, damaged tiles, absent tiles."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from damage import retag

from e2e_abmilx.slides import Slide, SlideError
from e2e_abmilx.synthetic import draw_slide


@pytest.mark.parametrize(
    "how",
    [
        {"tile": (64, 96), "compression": "zlib"},
        {"tile": (64, 96), "compression": "jpeg", "compressionargs": {"level": 100}, "subsampling": (1, 1)},
        {"tile": (64, 96), "compression": "lzw", "predictor": True},
        {"rowsperstrip": 50},
        {},
    ],
)
def test_other_layouts_are_read(tmp_path: Path, how: dict[str, object]) -> None:
    pixels = draw_slide(seed=1, lesion_fraction=0.2, side=512)[0][:300, :400]
    tifffile.imwrite(tmp_path / "one.tiff", pixels, photometric="rgb", **how)
    with Slide(tmp_path / "one.tiff") as slide:
        read = slide.read_level(0, 30, 40, 370, 260).astype(int)
    assert np.abs(read - pixels[40:, 30:]).max() <= (6 if how.get("compression") == "jpeg" else 0)


def test_tiles_that_are_cut_off_are_refused(slide_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.tiff"
    path.write_bytes(slide_file.read_bytes())
    retag(path, "TileByteCounts", {5: 2000})
    with Slide(path) as slide:
        slide.read_level(0, 0, 0, 1024, 256)
        with pytest.raises(SlideError, match=r"x 256, y 256 \(ValueError: tile 5 is cut off"):
            slide.read_level(0, 256, 256, 10, 10)


def test_absent_tiles_are_background_in_regions_and_thumbnails(slide_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "sparse.tiff"
    path.write_bytes(slide_file.read_bytes())
    retag(path, "TileByteCounts", {0: 0, 1: 0})
    with Slide(path) as slide, Slide(slide_file) as whole:
        thumbnail, expected = slide.thumbnail(1024), whole.thumbnail(1024)
        region, neighbour = slide.read_level(0, 500, 0, 20, 20), whole.read_level(0, 512, 0, 8, 20)
    assert (region[:, :12] == 255).all()
    np.testing.assert_array_equal(region[:, 12:], neighbour)
    assert (thumbnail[:256, :512] == 255).all()
    np.testing.assert_array_equal(thumbnail[256:], expected[256:])
