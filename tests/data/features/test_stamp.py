from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_files import COORDS, FEATURES, STAMP, write_h5, write_stamp
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.data.features import FeatureError, NoCoordsError, read_features


@pytest.mark.parametrize(
    ("attributes", "unit"),
    [
        (STAMP, 1.0),
        ({"tile_size": 256.0, "unit": "um"}, 1.0),  # the second version
        ({}, 224 / 256),  # first version: 224 units are 256 µm
        ({"tile_size": 224}, 224 / 256),
    ],
)
def test_coordinates_become_level_0_pixels(tmp_path: Path, attributes: dict[str, Any], unit: float) -> None:
    """At 0.2526 µm/px a tile of 256 µm is 1013.46 px: coordinates are rounded one by one, not multiples of a rounded size."""
    mpp = 0.2526
    grid = np.array([(x, y) for x in range(30) for y in (0, 1, 57)]) * 256.0
    path = write_stamp(tmp_path / "slide.h5", grid * unit, attributes)
    found = read_features(path, slide_mpp=mpp)
    np.testing.assert_array_equal(found.coords(), np.rint(grid / mpp).astype(np.int64))
    assert found.coords()[3].tolist() == [1013, 0]
    assert found.patch_size_level0 == pytest.approx(256 / mpp)
    known_px = "tile_size_px" in attributes or unit < 1
    assert found.mpp == (pytest.approx(256 / 224) if known_px else None)
    np.testing.assert_array_equal(
        found.read().numpy(), np.resize(FEATURES, (90, 6)).astype(np.float16).astype(np.float32)
    )
    unplaced = read_features(path)
    assert unplaced.patch_size_level0 is None
    with pytest.raises(NoCoordsError, match=r"coords in µm, but the slide's µm/px is unknown; .*data\.slides"):
        unplaced.coords()


@given(
    pixels=st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 200_000)), min_size=1, max_size=20),
    mpp=st.floats(0.1, 1.0),
)
def test_any_pixel_survives_float32(
    tmp_path_factory: pytest.TempPathFactory, pixels: list[tuple[int, int]], mpp: float
) -> None:
    path = tmp_path_factory.mktemp("stamp") / "slide.h5"
    found = read_features(write_stamp(path, np.array(pixels) * mpp, STAMP), slide_mpp=mpp)
    assert found.coords().tolist() == [list(pixel) for pixel in pixels]


def test_the_older_key(tmp_path: Path) -> None:
    path = write_stamp(tmp_path / "slide.h5", COORDS * 0.25, STAMP, key="patch_embeddings")
    np.testing.assert_array_equal(read_features(path, slide_mpp=0.25).coords(), COORDS)


def test_without_a_unit_features_have_no_coordinates(tmp_path: Path) -> None:
    found = read_features(write_stamp(tmp_path / "slide.h5", COORDS, {}), slide_mpp=0.25)
    assert found.read().shape == (9, 6)
    with pytest.raises(NoCoordsError, match="does not state the unit of its coords"):
        found.coords()


def test_features_of_slides_and_patients_are_refused(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "slide.h5", {"feats": FEATURES[:1]}, {"": {"feat_type": "patient"}})
    with pytest.raises(FeatureError, match="features of a patient; give the folder of features of tiles"):
        read_features(path)
