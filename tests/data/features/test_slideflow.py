from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_files import COORDS, assert_same, write_slideflow

from e2e_abmilx.data.features import NoCoordsError, read_features


def test_features_and_coordinates(tmp_path: Path) -> None:
    found = read_features(write_slideflow(tmp_path, {"tile_px": 299, "tile_um": 302}), slide_mpp=0.2526)
    assert_same(found)
    np.testing.assert_array_equal(found.coords(), COORDS)
    assert (found.patch_size_level0, found.mpp) == (1195, 302 / 299)


@pytest.mark.parametrize(
    ("settings", "mpp"), [(None, 0.25), ({"tile_px": 299, "tile_um": "10x"}, 0.25), ({"tile_um": 302}, None)]
)
def test_missing_settings_leave_features_without_coordinates(tmp_path: Path, settings: Any, mpp: float | None) -> None:
    found = read_features(write_slideflow(tmp_path, settings), slide_mpp=mpp)
    assert_same(found)
    with pytest.raises(NoCoordsError, match=r"has the centres of tiles; .* give the slides \(data\.slides\)"):
        found.coords()
