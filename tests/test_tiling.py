import pytest

from e2e_abmilx.tiling import TilingError, parse_scales


def test_magnifications_are_resolutions() -> None:
    assert parse_scales([1.0, 0.5]) == (0.5, 1.0)
    assert parse_scales(["20x", "5X"]) == (0.5, 2.0)
    assert parse_scales(["0.25", "20x", 1]) == (0.25, 0.5, 1.0)


@pytest.mark.parametrize("scale", ["twenty", "x", "0x", ""])
def test_other_words_are_refused(scale: str) -> None:
    with pytest.raises(TilingError, match="neither µm/px"):
        parse_scales([scale])
