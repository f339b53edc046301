"""µm per pixel: the values that a file states, and the one that is used."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from e2e_abmilx.slides import Slide, SlideError

PIXELS = np.full((256, 256, 3), 200, np.uint8)
APERIO = "Aperio Image Library v12\r\n256x256 [0,0 256x256] (128x128) JPEG/RGB Q=80|"
TILES = {"photometric": "rgb", "tile": (128, 128)}


def _ome(path: Path, tags: dict[str, object] | None = None, **fields: object) -> Slide:
    tifffile.imwrite(path, PIXELS, ome=True, metadata={"axes": "YXS", **fields}, **TILES, **(tags or {}))
    return Slide(path)


def _tags(path: Path, x: float, y: float) -> Slide:
    tifffile.imwrite(path, PIXELS, resolution=(1e4 / x, 1e4 / y), resolutionunit="CENTIMETER", metadata=None, **TILES)
    return Slide(path)


def _aperio(path: Path, fields: str) -> Slide:
    tifffile.imwrite(path, PIXELS, description=APERIO + fields, metadata=None, software="", **TILES)
    return Slide(path)


@pytest.mark.parametrize(
    ("size", "unit"),
    [(0.5, "µm"), (0.5, None), (500.0, "nm"), (5e-4, "mm"), (5e-5, "cm"), (5000.0, "Å"), (5e-7, "m"), (5e5, "pm"),
     (0.5 / 25.4, "thou"), (0.5 / 25400, "in")],
)  # fmt: skip
def test_ome_xml_with_its_unit(tmp_path: Path, size: float, unit: str | None) -> None:
    units = {} if unit is None else {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    with _ome(tmp_path / "one.ome.tif", PhysicalSizeX=size, PhysicalSizeY=size, **units) as slide:
        assert slide.resolution(assume_mpp=1.0) == (pytest.approx(0.5), "OME-XML")


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "parsec"])
def test_units_that_are_not_lengths_are_ignored(tmp_path: Path, unit: str) -> None:
    fields = {"PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0, "PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    with _ome(tmp_path / "one.ome.tif", **fields) as slide, pytest.raises(SlideError, match="does not state"):
        slide.resolution()


def test_ome_xml_precedes_tags_and_a_contradiction_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tags = {"resolution": (10000, 10000), "resolutionunit": "CENTIMETER"}
    with _ome(tmp_path / "one.ome.tif", tags, PhysicalSizeX=0.5, PhysicalSizeY=0.5) as slide:
        assert slide.resolution() == (0.5, "OME-XML")
    (record,) = caplog.records
    assert "states 0.5 µm/px in its OME-XML but 1 in its TIFF tags: using OME-XML" in record.getMessage()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("AppMag = 20|MPP = 0,2500", (0.25, "aperio header")),
        ("AppMag = 20|MPP = 0.2500", (0.25, "aperio header")),
        ("AppMag = 40,0|Left = 1", (0.25, "objective power 40x")),
        ("AppMag = 20|MPP = 0", (0.5, "objective power 20x")),
        ("AppMag = 20|MPP = 1,000,5", (0.5, "objective power 20x")),
        ("AppMag = 20|MPP = 350", (0.5, "objective power 20x")),
        ("AppMag = 0|MPP = ", (1.0, "assumed")),
        ("AppMag = 0.1", (1.0, "assumed")),
    ],
)
def test_order_of_precedence(tmp_path: Path, fields: str, expected: tuple[float, str]) -> None:
    with _aperio(tmp_path / "one.svs", fields) as slide:
        assert slide.resolution(assume_mpp=1.0) == expected


def test_an_unknown_resolution_is_refused(tmp_path: Path) -> None:
    with _aperio(tmp_path / "one.svs", "Left = 1") as slide, pytest.raises(SlideError, match="assume_mpp"):
        slide.resolution()


@pytest.mark.parametrize("sides", [(0.25, 0.5), (0.5, 0.25), (0.5, 0.53), (0.25, 352.8)])
def test_pixels_that_are_not_square_are_refused_unless_overridden(tmp_path: Path, sides: tuple[float, float]) -> None:
    with _tags(tmp_path / "one.tif", *sides) as slide:
        with pytest.raises(SlideError, match="not square"):
            slide.resolution(assume_mpp=0.5)
        assert slide.resolution(override_mpp=0.5).mpp == 0.5


def test_nearly_square_pixels_have_their_mean(tmp_path: Path) -> None:
    with _tags(tmp_path / "one.tif", 0.5, 0.52) as slide:
        assert slide.resolution().mpp == pytest.approx((0.5 * 0.52) ** 0.5, rel=1e-4)


def test_an_override_that_contradicts_the_slide_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with _tags(tmp_path / "one.tif", 0.5, 0.5) as slide:
        assert slide.resolution(override_mpp=0.505) == (0.505, "override")
        assert not caplog.records
        assert slide.resolution(override_mpp=0.25) == (0.25, "override")
    assert "states 0.5 µm/px (TIFF resolution tags), but the slide list 0.25: using the slide list" in caplog.text
