"""The image of a TIFF that is the slide."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from e2e_abmilx.slides import Slide, SlideError
from e2e_abmilx.synthetic import draw_slide

SLIDE = draw_slide(seed=1, lesion_fraction=0.2, side=512)[0]
OTHER = np.full((128, 160, 3), 90, np.uint8)
TILED = {"tile": (128, 128), "resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}


def _write(path: Path, *pages: tuple[np.ndarray, dict[str, object]]) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        for pixels, how in pages:
            tiff.write(pixels, photometric="rgb", metadata=None, **how)
    return path


@pytest.mark.parametrize(
    "macro", [{}, {"tile": (64, 64)}, {"description": "Macro", "resolution": (72, 72), "resolutionunit": "INCH"}]
)
@pytest.mark.parametrize("first", [True, False])
def test_the_largest_tiled_pyramid_is_the_slide(tmp_path: Path, macro: dict[str, object], first: bool) -> None:
    pyramid = [(SLIDE, TILED), (SLIDE[::4, ::4], {**TILED, "subfiletype": 1})]
    pages = [(OTHER, macro), *pyramid] if first else [*pyramid, (OTHER, macro)]
    with Slide(_write(tmp_path / "one.tif", *pages)) as slide:
        assert slide.level_dimensions == ((512, 512), (128, 128))
        assert slide.resolution().mpp == pytest.approx(0.5)
        np.testing.assert_array_equal(slide.read_level(0, 3, 5, 400, 300), SLIDE[5:305, 3:403])


@pytest.mark.parametrize(
    "pages",
    [
        [(SLIDE, TILED), (SLIDE[:, :400], TILED)],  # two regions
        [(SLIDE[:300], TILED), (SLIDE, {})],  # a larger image that is not tiled
        [(SLIDE[:300], TILED), (SLIDE, TILED), (OTHER, {})],
    ],
)
def test_several_candidates_are_refused(tmp_path: Path, pages: list[tuple[np.ndarray, dict[str, object]]]) -> None:
    with pytest.raises(SlideError, match=r"2 images that may be the slide, \d+ × \d+ .* and \d+ × \d+"):
        Slide(_write(tmp_path / "one.tif", *pages))


def test_stacks_of_planes_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "stack.tif", (SLIDE, TILED), (SLIDE, TILED))
    with pytest.raises(SlideError, match="2 images of one size"):
        Slide(path)
    tifffile.imwrite(
        path, np.stack([SLIDE] * 4), photometric="rgb", tile=(128, 128), ome=True, metadata={"axes": "ZYXS"}
    )
    with pytest.raises(SlideError, match="4 images of one size"):
        Slide(path)


def test_openslide_must_choose_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "one.tif"
    cmyk = 255 - np.dstack([SLIDE, np.full(SLIDE.shape[:2], 255, np.uint8)])
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(OTHER, photometric="rgb", tile=(64, 64), metadata=None)
        tiff.write(cmyk, photometric="separated", metadata=None, **TILED)
    with pytest.raises(SlideError, match="160 × 128 pixels instead of 512 × 512"):
        Slide(path)


def _write_channels(path: Path, **channels: list[object]) -> Path:
    planes = np.moveaxis(SLIDE, -1, 0)
    metadata = {"axes": "CYX", **({"Channel": channels} if channels else {})}
    tifffile.imwrite(path, planes, photometric="minisblack", ome=True, metadata=metadata, **TILED)
    return path


@pytest.mark.parametrize(
    "channels", [{}, {"Name": ["Red", "Green", "Blue"]}, {"Name": ["Channel 0", "Channel 1", "Channel 2"]}]
)
def test_three_channels_are_red_green_and_blue(tmp_path: Path, channels: dict[str, list[object]]) -> None:
    with Slide(_write_channels(tmp_path / "one.ome.tif", **channels)) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 512, 512), SLIDE)


@pytest.mark.parametrize(
    "channels",
    [
        {"Name": ["DAPI", "FITC", "Cy3"]},
        {"Name": ["Blue", "Green", "Red"]},
        {"Color": [0x0000FFFF, 0x00FF00FF, -16776961]},
    ],
)
def test_other_channels_are_refused(tmp_path: Path, channels: dict[str, list[object]]) -> None:
    with pytest.raises(SlideError, match="channels are not red, green and blue"):
        Slide(_write_channels(tmp_path / "one.ome.tif", **channels))
