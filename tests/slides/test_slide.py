import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import tiffslide
from PIL import Image

from e2e_abmilx.slides import Slide, SlideError
from e2e_abmilx.synthetic import draw_slide, write_slide


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "one.tiff"
    write_slide(path, seed=3, lesion_share=0.3, side=1024)
    return path


def _tagged(path: Path, dpi: float | None) -> Path:
    """A plain TIFF whose resolution tags state dots per inch."""
    pixels = np.full((512, 512, 3), 200, np.uint8)
    how = {} if dpi is None else {"resolution": (dpi, dpi), "resolutionunit": "INCH"}
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", **how)
    return path


def test_levels_and_resolution(slide_file: Path) -> None:
    with Slide(slide_file) as slide:
        assert slide.size == (1024, 1024)
        assert slide.level_downsamples[:3] == (1.0, 2.0, 4.0)
        assert slide.resolution() == (pytest.approx(0.5), "TIFF resolution tags")


def test_level_zero_is_what_was_drawn(slide_file: Path) -> None:
    drawn = draw_slide(seed=3, lesion_share=0.3, side=1024)[0].astype(float)
    with Slide(slide_file) as slide:
        read = slide.read_level(0, 100, 200, 300, 400).astype(float)
    error = ((read - drawn[200:600, 100:400]) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 30  # PSNR in dB; only the JPEG lies between


@pytest.mark.parametrize("max_side", [100, 333, 1024, 4000])
def test_thumbnail_is_the_area_mean(slide_file: Path, max_side: int) -> None:
    with Slide(slide_file) as slide:
        thumbnail = slide.thumbnail(max_side)
        whole = Image.fromarray(slide.read_level(0, 0, 0, 1024, 1024))
    side = min(max_side, 1024)
    assert thumbnail.shape == (side, side, 3)
    expected = np.asarray(whole.resize((side, side), Image.Resampling.BOX)).astype(float)
    assert np.abs(thumbnail.astype(float) - expected).mean() < 4


@pytest.mark.parametrize("dpi", [72, 96, 300])
def test_screen_dpi_is_not_believed(tmp_path: Path, dpi: float) -> None:
    with Slide(_tagged(tmp_path / "screen.tiff", dpi)) as slide:
        with pytest.raises(SlideError, match=r"screen dpi.*assume_mpp"):
            slide.resolution()
        assert slide.resolution(0.25) == (0.25, "assumed")


def test_no_resolution_is_refused(tmp_path: Path) -> None:
    with Slide(_tagged(tmp_path / "none.tiff", None)) as slide, pytest.raises(SlideError, match="assume_mpp"):
        slide.resolution()


def test_real_tags_are_believed_before_what_is_assumed(tmp_path: Path) -> None:
    with Slide(_tagged(tmp_path / "scan.tiff", 25400 / 0.25)) as slide:  # 0.25 µm/px
        assert slide.resolution(assume_mpp=1.0).mpp == pytest.approx(0.25, rel=1e-3)
        assert slide.resolution(override_mpp=0.25) == (0.25, "override")


def test_plan_takes_the_coarsest_level_that_is_fine_enough(slide_file: Path) -> None:
    with Slide(slide_file) as slide:
        assert slide.plan(0.5, 64, 0.5) == (0, 1.0, 64.0, 0.5)
        assert slide.plan(1.0, 64, 0.5) == (1, 2.0, 128.0, 1.0)
        resized = slide.plan(0.8, 64, 0.5)
        assert resized.level == 0
        assert resized.footprint == pytest.approx(64 * 1.6)
        assert slide.plan(0.505, 64, 0.5) == (0, 1.0, 64.0, 0.5)  # within 2 %: pixels as they are
        with pytest.raises(SlideError, match=r"coarser than the 0\.25"):
            slide.plan(0.25, 64, 0.5)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="no such file"):
        Slide(tmp_path / "absent.svs")
    text = tmp_path / "text.svs"
    text.write_text("this is not a slide")
    with pytest.raises(SlideError, match=r"text\.svs cannot be opened"):
        Slide(text)


def test_files_that_cannot_be_decoded(shared: Path) -> None:
    unreadable = shared / "data/slides/openslide_unreadable.svs"
    with Slide(unreadable) as slide, pytest.raises(SlideError, match="cannot be read"):
        slide.thumbnail()
    with pytest.raises(SlideError, match=r"cannot be read: its encoding \(rgb, 52479, tiles\)"):
        Slide(shared / "data/slides/openslide_unopenable.tiff")


def test_real_slides_state_their_resolution(shared: Path) -> None:
    stated = {"CMU-1-Small-Region.svs": 0.499, "gastrectomy.svs": 2.93}
    for name, mpp in stated.items():
        with Slide(shared / "data/slides" / name) as slide:
            assert slide.resolution() == (pytest.approx(mpp), "aperio header")
    with Slide(shared / "data/slides/no_mpp.tiff") as slide, pytest.raises(SlideError, match="assume_mpp"):
        slide.resolution()


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "gastrectomy.svs", "no_mpp.tiff"])
def test_pixels_are_those_of_tiffslide(shared: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    with Slide(shared / "data/slides" / name) as slide, tiffslide.TiffSlide(slide.path) as other:
        for level, size in enumerate(slide.level_dimensions):
            for _ in range(6):
                width, height = (int(rng.integers(1, min(side, 700))) for side in size)
                x, y = int(rng.integers(size[0] - width + 1)), int(rng.integers(size[1] - height + 1))
                expected = other.zarr_group[str(level)][y : y + height, x : x + width]
                np.testing.assert_array_equal(slide.read_level(level, x, y, width, height), expected)


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
    pixels = draw_slide(seed=1, lesion_share=0.2, side=512)[0][:300, :400]
    tifffile.imwrite(tmp_path / "one.tiff", pixels, photometric="rgb", **how)
    with Slide(tmp_path / "one.tiff") as slide:
        read = slide.read_level(0, 30, 40, 370, 260).astype(int)
    assert np.abs(read - pixels[40:, 30:]).max() <= (6 if how.get("compression") == "jpeg" else 0)


@pytest.mark.parametrize("shrink", [2, 3, 29])
def test_shrinking_is_the_mean_over_squares(
    slide_file: Path, shrink: int, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def _retag(path: Path, tag: str, change: dict[int, int], level: int = 0) -> None:
    """Change what a level's table says of some tiles."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        entry = tiff.series[0].levels[level].pages[0].tags[tag]
        entry.overwrite([change.get(index, known) for index, known in enumerate(entry.value)])


def test_tiles_that_break_off_are_refused(slide_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.tiff"
    path.write_bytes(slide_file.read_bytes())
    _retag(path, "TileByteCounts", {5: 2000})
    with Slide(path) as slide:
        slide.read_level(0, 0, 0, 1024, 256)
        with pytest.raises(SlideError, match=r"x 256, y 256 \(ValueError: tile 5 breaks off"):
            slide.read_level(0, 256, 256, 10, 10)


def test_absent_tiles_are_glass_from_afar_and_near(slide_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "sparse.tiff"
    path.write_bytes(slide_file.read_bytes())
    _retag(path, "TileByteCounts", {0: 0, 1: 0})
    with Slide(path) as slide, Slide(slide_file) as whole:
        thumbnail, expected = slide.thumbnail(1024), whole.thumbnail(1024)
        near, beside = slide.read_level(0, 500, 0, 20, 20), whole.read_level(0, 512, 0, 8, 20)
    assert (near[:, :12] == 255).all()
    np.testing.assert_array_equal(near[:, 12:], beside)
    assert (thumbnail[:256, :512] == 255).all()
    np.testing.assert_array_equal(thumbnail[256:], expected[256:])


def test_thumbnail_of_a_damaged_level_comes_from_a_coarser_one(slide_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.tiff"
    path.write_bytes(slide_file.read_bytes())
    _retag(path, "TileByteCounts", {3: 2000}, level=1)
    with Slide(path) as slide, Slide(slide_file) as whole:
        thumbnail, expected = slide.thumbnail(500).astype(float), whole.thumbnail(500)
    assert thumbnail.shape == expected.shape
    assert np.abs(thumbnail - expected).mean() < 8


def _destroy(path: Path, tiles: slice, level: int = 0) -> None:
    """Overwrite tiles of a level with zeros."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.series[0].levels[level].pages[0]
        for offset, size in zip(page.dataoffsets[tiles], page.databytecounts[tiles], strict=True):
            tiff.filehandle.seek(offset)
            tiff.filehandle.write(bytes(size))


@pytest.mark.parametrize("max_side", [4000, 700])
def test_thumbnail_of_one_damaged_level_has_glass_there(
    shared: Path, tmp_path: Path, max_side: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "damaged.svs"
    shutil.copy(shared / "data/slides/CMU-1-Small-Region.svs", path)
    _destroy(path, slice(63, 64))  # of 10 × 13 tiles of 240 px, the fourth of the seventh row
    with Slide(path) as slide, Slide(shared / "data/slides/CMU-1-Small-Region.svs") as whole:
        thumbnail, expected = slide.thumbnail(max_side), whole.thumbnail(max_side)
    shrink = max(1, 2967 / max_side)
    inner = tuple(
        slice(round(first / shrink) + 2, round((first + 240) / shrink) - 2) for first in (1440, 720)
    )
    outer = tuple(slice(edges.start - 4, edges.stop + 4) for edges in inner)
    assert (thumbnail[inner] == 255).all()
    differs = (thumbnail != expected).any(axis=2)
    differs[outer] = False
    assert not differs.any()
    (record,) = caplog.records
    assert re.match(
        rf"0\.87 % of the thumbnail of {path} is missing .*x 720, y 1440 .*tile 63 ", record.getMessage()
    )


def test_thumbnail_of_damaged_levels_is_of_the_one_that_misses_least(
    slide_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "damaged.tiff"
    shutil.copy(slide_file, path)
    for level, tiles in ((0, slice(0, 2)), (1, slice(0, 4)), (2, slice(0, 1)), (3, slice(0, 1))):
        _destroy(path, tiles, level)
    with Slide(path) as slide, Slide(slide_file) as whole:
        np.testing.assert_array_equal(slide.thumbnail()[256:], whole.thumbnail()[256:])
        with pytest.raises(SlideError, match="level 1 cannot be read"):
            slide.thumbnail(512)
    assert "12 % of the thumbnail" in caplog.text


def test_thumbnails_are_not_salvaged_where_another_try_helps(slide_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.tiff"
    shutil.copy(slide_file, path)
    for level in range(4):
        _retag(path, "TileOffsets", {0: path.stat().st_size}, level)
    with Slide(path) as slide, pytest.raises(SlideError, match="tile 0 lies beyond the end of the file"):
        slide.thumbnail()
    with Slide(slide_file) as slide:
        pipe = os.pipe()
        os.dup2(
            pipe[0], slide._reader._levels[0]._file.fileno()
        )  # what can be opened and not be read, as a disk that is gone
        with pytest.raises(SlideError, match="OSError"):
            slide.thumbnail()
    for end in pipe:
        os.close(end)
