"""An open slide: levels, resolution, the choice of a level, and files that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import tiffslide

from e2e_abmilx.slides import Slide, SlideError
from e2e_abmilx.synthetic import draw_slide


def _tagged(path: Path, dpi: float | None) -> Path:
    """Write a plain TIFF whose resolution tags state dots per inch."""
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
    drawn = draw_slide(seed=3, lesion_fraction=0.3, side=1024)[0].astype(float)
    with Slide(slide_file) as slide:
        read = slide.read_level(0, 100, 200, 300, 400).astype(float)
    error = ((read - drawn[200:600, 100:400]) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 30  # PSNR in dB; only JPEG compression makes a difference


@pytest.mark.parametrize("dpi", [72, 96, 300])
def test_screen_dpi_is_not_believed(tmp_path: Path, dpi: float) -> None:
    with Slide(_tagged(tmp_path / "screen.tiff", dpi)) as slide:
        with pytest.raises(SlideError, match=r"screen dpi.*assume_mpp"):
            slide.resolution()
        assert slide.resolution(0.25) == (0.25, "assumed")


def test_no_resolution_is_refused(tmp_path: Path) -> None:
    with Slide(_tagged(tmp_path / "none.tiff", None)) as slide, pytest.raises(SlideError, match="assume_mpp"):
        slide.resolution()


def test_stated_resolution_precedes_the_assumed_one(tmp_path: Path) -> None:
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
        assert slide.plan(0.505, 64, 0.5) == (0, 1.0, 64.0, 0.5)  # within 2 %: not resampled
        with pytest.raises(SlideError, match=r"coarser than the 0\.25"):
            slide.plan(0.25, 64, 0.5)


def test_unusable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="no such file"):
        Slide(tmp_path / "absent.svs")
    text = tmp_path / "text.svs"
    text.write_text("this is not a slide")
    with pytest.raises(SlideError, match=r"text\.svs cannot be opened"):
        Slide(text)


def test_files_that_cannot_be_decoded_are_refused(shared: Path) -> None:
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


def test_coarsest_level_is_not_coarser_than_asked(slide_file: Path) -> None:
    with Slide(slide_file) as slide:
        levels = {downsample: slide.coarsest_level(downsample) for downsample in (1.0, 1.9, 1.97, 2.0, 4.1, 100.0)}
    assert levels == {1.0: 0, 1.9: 0, 1.97: 1, 2.0: 1, 4.1: 2, 100.0: 3}
