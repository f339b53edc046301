from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feature_files import COORDS, FEATURES, assert_same, write_h5, write_trident

from e2e_abmilx.data.features import FeatureError, TridentWriter, describe_patches, read_attributes, read_features
from e2e_abmilx.store import PatchStore, write_store


def test_features_coordinates_and_resolution(tmp_path: Path) -> None:
    found = read_features(write_trident(tmp_path / "slide.h5"))
    assert_same(found)
    np.testing.assert_array_equal(found.coords(), COORDS)
    assert found.coords().dtype == np.int64
    assert (found.patch_size_level0, found.mpp) == (512, 0.5)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"patch_size": 256, "patch_level": 0}, 256),
        ({"patch_size": 256, "patch_level": 0, "custom_downsample": 2}, 512),
        ({"patch_size": 256, "patch_level": 1, "downsample": (4.0, 4.0)}, 1024),
        ({"patch_size": 256, "patch_level": 1}, None),
        ({}, None),
    ],
)
def test_legacy_trident_and_clam(tmp_path: Path, attributes: dict[str, Any], size: float | None) -> None:
    tables = {"features": FEATURES, "coords": COORDS.astype(np.int32)}
    found = read_features(write_h5(tmp_path / "slide.h5", tables, {"coords": attributes}))
    assert_same(found)
    np.testing.assert_array_equal(found.coords(), COORDS)
    assert (found.patch_size_level0, found.mpp) == (size, None)


def test_written_features_are_read_again(tmp_path: Path) -> None:
    attributes: dict[str, dict[str, str | int]] = {"features": {"encoder": "x"}, "coords": {"patch_size": 8}}
    path = tmp_path / "slide.h5"
    writer = TridentWriter(path, 9, COORDS, attributes)
    writer.write(torch.from_numpy(FEATURES[:4]))
    assert not path.exists()
    writer.write(torch.from_numpy(FEATURES[4:]).double())
    writer.finish()
    found = read_features(path)
    assert_same(found)
    np.testing.assert_array_equal(found.coords(), COORDS)
    assert read_attributes(path) == attributes
    assert [file.name for file in tmp_path.iterdir()] == ["slide.h5"]


def test_incomplete_files_are_removed(tmp_path: Path) -> None:
    writer = TridentWriter(tmp_path / "slide.h5", 9, None, {"features": {}, "coords": {}})
    with pytest.raises(FeatureError, match="the encoder gives NaN or infinite features for slide"):
        writer.write(torch.full((1, 6), torch.nan))
    writer.write(torch.from_numpy(FEATURES[:4]))
    writer.abandon()
    assert not list(tmp_path.iterdir())


def test_a_store_is_described_as_far_as_it_is_known(tmp_path: Path) -> None:
    write_store(tmp_path / "s.zarr", {0.5: (np.zeros((2, 16, 16, 3), np.uint8), None)})
    assert describe_patches(PatchStore(tmp_path / "s.zarr")) == {"patch_size": 16, "target_magnification": 20}
