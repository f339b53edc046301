"""tifffile as a reader: which files it opens, and which tiles it reports as missing or damaged."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from damage import destroy, retag

from e2e_abmilx.slides.pyramids import find_pyramid
from e2e_abmilx.slides.resolution import Stated
from e2e_abmilx.slides.tiff_reader import TiffReader, is_damage, open_tiff


def _reader(path: Path) -> TiffReader:
    tiff = open_tiff(path)
    assert tiff is not None
    return TiffReader(tiff, find_pyramid(tiff), Stated())


def test_only_tiffs_are_opened(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("this is not a slide")
    assert open_tiff(tmp_path / "text.tif") is None
    path = tmp_path / "zip::one.tif"  # a chain of protocols for fsspec
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", tile=(32, 32))
    tiff = open_tiff(path)
    assert tiff is not None
    tiff.close()


def test_levels_of_a_whole_file(slide_file: Path) -> None:
    reader = _reader(slide_file)
    assert reader.level_dimensions == ((1024, 1024), (512, 512), (256, 256), (128, 128))
    assert reader.level_downsamples == (1.0, 2.0, 4.0, 8.0)
    assert reader.tile(0) == (256, 256)
    assert reader.is_first_page
    assert reader.failure() is None
    assert not reader.lacks_coarse_tiles()
    reader.close()


def test_a_slide_fails_only_if_no_sample_tile_can_be_decoded(slide_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.tiff"
    path.write_bytes(slide_file.read_bytes())
    destroy(path, slice(0, 15))  # of 16 tiles
    reader = _reader(path)
    assert reader.failure() is None
    reader.close()
    destroy(path, slice(15, 16))
    reader = _reader(path)
    failure = reader.failure()
    assert failure is not None
    assert is_damage(failure)
    reader.close()


def test_tiles_left_out_of_a_coarser_level_are_noticed(slide_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "sparse.tiff"
    path.write_bytes(slide_file.read_bytes())
    retag(path, "TileByteCounts", {0: 0})
    reader = _reader(path)
    assert not reader.lacks_coarse_tiles()
    reader.close()
    retag(path, "TileByteCounts", {0: 0}, level=1)
    reader = _reader(path)
    assert reader.lacks_coarse_tiles()
    reader.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EOFError(), True),
        (OSError(), True),
        (ValueError("tile 5 is cut off"), True),
        (ValueError("needs a codec"), False),
    ],
)
def test_damage_differs_from_an_unknown_encoding(error: Exception, expected: bool) -> None:
    assert is_damage(error) == expected
