"""Scales may be µm/px, magnifications or pyramid levels, and settings out of range are refused."""

from pathlib import Path

import pytest

from e2e_abmilx.cache.tiling import Tiling, TilingError, check, parse_scales
from e2e_abmilx.slides.slide_files import SlideFile
from e2e_abmilx.synthetic import write_slide


def test_magnifications_are_converted_to_resolutions() -> None:
    assert parse_scales([1.0, 0.5]) == (0.5, 1.0)
    assert parse_scales(["20x", "5X"]) == (0.5, 2.0)
    assert parse_scales(["0.25", "20x", 1]) == (0.25, 0.5, 1.0)


@pytest.mark.parametrize("scale", ["twenty", "x", "0x", "", "level", "level-1"])
def test_other_words_are_refused(scale: str) -> None:
    with pytest.raises(TilingError, match="neither µm/px"):
        parse_scales([scale])


def test_levels_are_those_of_the_first_slide_that_has_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    (tmp_path / "text.svs").write_text("not a slide")
    write_slide(tmp_path / "one.tiff", seed=0, lesion_fraction=0.2, side=512)
    slides = [SlideFile(tmp_path / "text.svs"), SlideFile(tmp_path / "one.tiff")]
    assert parse_scales(["level2", "level0", 0.75], slides) == (0.5, 0.75, 2.0)
    assert f"level2 is taken as 2 µm/px, from {tmp_path / 'one.tiff'}" in caplog.text
    slides.insert(0, SlideFile(tmp_path / "one.tiff", mpp=0.2))
    assert parse_scales(["Level1"], slides) == (0.4,)
    with pytest.raises(TilingError, match=r"level9: none of 3 slides .* has that level; ask for a lower"):
        parse_scales(["level0", "level9"], slides)


def test_levels_of_real_slides(shared: Path) -> None:
    names = ("CMU-1-Small-Region.svs", "no_mpp.tiff", "gastrectomy.svs")
    one_level, unknown, pyramid = (SlideFile(shared / "data/slides" / name) for name in names)
    assert parse_scales(["level0"], [one_level, pyramid]) == (0.499,)
    assert parse_scales(["level0", "level1"], [one_level, pyramid]) == (2.93, 11.72)  # both of one slide
    assert parse_scales(["level1"], [unknown, pyramid]) == (11.72,)
    assert parse_scales(["level1"], [unknown, pyramid], 0.25) == (0.5,)
    with pytest.raises(TilingError, match="give assume_mpp"):
        parse_scales(["level1"], [one_level, unknown])


@pytest.mark.parametrize("scales", [[0.5, "20x"], [0.0], [-1.0], ["inf"], ["nan"]])
def test_equal_or_impossible_scales_are_refused(scales: list[float | str]) -> None:
    with pytest.raises(TilingError, match="give different positive µm/px"):
        parse_scales(scales)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mpp", ()),
        ("patch_size", 7),
        ("overlap", -0.1),
        ("overlap", 1.0),
        ("min_tissue", 1.1),
        ("quality", 101),
        ("assume_mpp", 0.0),
    ],
)
def test_a_setting_out_of_range_is_named(name: str, value: object) -> None:
    tiling = Tiling((0.5,), 8, 0.0, 1.0, 100, None)
    check(tiling)
    with pytest.raises(TilingError, match=f"{name} is {value or ''}"):
        check(tiling._replace(**{name: value}))
