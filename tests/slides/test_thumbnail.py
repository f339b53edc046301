"""Thumbnails: averages of squares, and what happens to damaged tiles."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from damage import destroy, retag
from PIL import Image

from e2e_abmilx.slides import Slide, SlideError


@pytest.mark.parametrize("max_side", [100, 333, 1024, 4000])
def test_thumbnail_is_the_area_mean(slide_file: Path, max_side: int) -> None:
    with Slide(slide_file) as slide:
        thumbnail = slide.thumbnail(max_side)
        whole = Image.fromarray(slide.read_level(0, 0, 0, 1024, 1024))
    side = min(max_side, 1024)
    assert thumbnail.shape == (side, side, 3)
    expected = np.asarray(whole.resize((side, side), Image.Resampling.BOX)).astype(float)
    assert np.abs(thumbnail.astype(float) - expected).mean() < 4


@pytest.mark.parametrize("shrink", [2, 3, 29])
def test_shrinking_averages_squares(slide_file: Path, shrink: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with Slide(slide_file) as slide:
        at_once = slide.read_level(0, 10, 20, 600, 499, shrink=shrink)
        pixels = slide.read_level(0, 10, 20, 600, 499).astype(float)
        monkeypatch.setattr("e2e_abmilx.slides.thumbnail._PART", 100)
        in_parts = slide.read_level(0, 10, 20, 600, 499, shrink=shrink)
    np.testing.assert_array_equal(at_once, in_parts)
    assert at_once.shape == (-(-499 // shrink), -(-600 // shrink), 3)
    for row, column in ((0, 0), (3, 5), (-1, -1)):
        y, x = row % at_once.shape[0] * shrink, column % at_once.shape[1] * shrink
        square = pixels[y : y + shrink, x : x + shrink]
        assert np.abs(at_once[row, column] - square.mean(axis=(0, 1))).max() < 1


def test_thumbnail_of_a_damaged_level_comes_from_a_coarser_one(slide_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.tiff"
    path.write_bytes(slide_file.read_bytes())
    retag(path, "TileByteCounts", {3: 2000}, level=1)
    with Slide(path) as slide, Slide(slide_file) as whole:
        thumbnail, expected = slide.thumbnail(500).astype(float), whole.thumbnail(500)
    assert thumbnail.shape == expected.shape
    assert np.abs(thumbnail - expected).mean() < 8


@pytest.mark.parametrize("max_side", [4000, 700])
def test_thumbnail_of_a_single_damaged_level_has_background_there(
    shared: Path, tmp_path: Path, max_side: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "damaged.svs"
    shutil.copy(shared / "data/slides/CMU-1-Small-Region.svs", path)
    destroy(path, slice(63, 64))  # of 10 × 13 tiles of 240 px, the fourth of the seventh row
    with Slide(path) as slide, Slide(shared / "data/slides/CMU-1-Small-Region.svs") as whole:
        thumbnail, expected = slide.thumbnail(max_side), whole.thumbnail(max_side)
    shrink = max(1, 2967 / max_side)
    inner = tuple(slice(round(first / shrink) + 2, round((first + 240) / shrink) - 2) for first in (1440, 720))
    outer = tuple(slice(edges.start - 4, edges.stop + 4) for edges in inner)
    assert (thumbnail[inner] == 255).all()
    differs = (thumbnail != expected).any(axis=2)
    differs[outer] = False
    assert not differs.any()
    (record,) = caplog.records
    assert re.match(
        rf"0\.87 % of the thumbnail of {path} cannot be read .*x 720, y 1440 .*tile 63 ", record.getMessage()
    )


def test_thumbnail_of_damaged_levels_uses_the_most_complete_one(
    slide_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "damaged.tiff"
    shutil.copy(slide_file, path)
    for level, tiles in ((0, slice(0, 2)), (1, slice(0, 4)), (2, slice(0, 1)), (3, slice(0, 1))):
        destroy(path, tiles, level)
    with Slide(path) as slide, Slide(slide_file) as whole:
        np.testing.assert_array_equal(slide.thumbnail()[256:], whole.thumbnail()[256:])
        with pytest.raises(SlideError, match="level 1 cannot be read"):
            slide.thumbnail(512)
    assert "12 % of the thumbnail" in caplog.text


def test_thumbnails_are_not_salvaged_if_the_file_may_become_readable(slide_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.tiff"
    shutil.copy(slide_file, path)
    for level in range(4):
        retag(path, "TileOffsets", {0: path.stat().st_size}, level)
    with Slide(path) as slide, pytest.raises(SlideError, match="tile 0 lies beyond the end of the file"):
        slide.thumbnail()
    with Slide(slide_file) as slide:
        pipe = os.pipe()
        os.dup2(pipe[0], slide._reader._levels[0]._file.fileno())  # opened but not readable, like a lost disk
        with pytest.raises(SlideError, match="OSError"):
            slide.thumbnail()
    for end in pipe:
        os.close(end)
