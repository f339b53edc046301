from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feature_files import COORDS, FEATURES, STAMP, assert_same, write_h5, write_pt, write_stamp, write_trident

from e2e_abmilx.data.features import FeatureError, NoCoordsError, read_features


def _nan() -> np.ndarray:
    broken = FEATURES.copy()
    broken[[2, 5], 1] = [np.nan, np.inf]
    return broken


def test_nan_is_named_when_it_is_read(tmp_path: Path) -> None:
    for found in (
        read_features(write_trident(tmp_path / "a.h5", _nan())),
        read_features(write_pt(tmp_path / "b.pt", _nan())),
    ):
        with pytest.raises(FeatureError, match="NaN or infinite features in 2 of the 9 patches"):
            found.read()
        np.testing.assert_array_equal(found.read(np.array([0, 1])).numpy(), FEATURES[:2])


def test_finite_features_with_an_infinite_sum_are_read(tmp_path: Path) -> None:
    large = np.full((3, 2), 3e38, np.float32)
    assert torch.from_numpy(large).sum().isinf()
    write_pt(tmp_path / "s.pt", torch.from_numpy(large))
    np.testing.assert_array_equal(read_features(tmp_path / "s.pt").read().numpy(), large)


def test_damaged_coordinates_are_named(tmp_path: Path) -> None:
    short = write_h5(tmp_path / "a.h5", {"features": FEATURES, "coords": COORDS[:4]})
    with pytest.raises(FeatureError, match=r"coords int64 of \(4, 2\), not a whole \(x, y\) for each of 9"):
        read_features(short).coords()
    fractions = write_h5(tmp_path / "b.h5", {"features": FEATURES, "coords": COORDS + 0.5})
    with pytest.raises(FeatureError, match=r"coords that are not whole pixels in 9 of 9 patches, first \(\d+\.5, "):
        read_features(fractions).coords()
    absent = write_h5(tmp_path / "c.h5", {"features": FEATURES})
    with pytest.raises(NoCoordsError, match=r"has no coords, .* it holds \['features'\]"):
        read_features(absent).coords()
    damaged = write_stamp(tmp_path / "d.h5", COORDS * np.nan, STAMP)
    with pytest.raises(FeatureError, match="NaN or infinite coords"):
        read_features(damaged, slide_mpp=0.25).coords()


@pytest.mark.parametrize("kind", [np.float32, np.float64, ">f4", np.uint32])
def test_whole_coords_of_any_kind_are_read(tmp_path: Path, kind: Any) -> None:
    coords = COORDS.astype(kind)
    in_h5 = read_features(write_h5(tmp_path / "a.h5", {"features": FEATURES, "coords": coords}))
    np.testing.assert_array_equal(in_h5.coords(), COORDS)
    assert in_h5.coords().dtype == np.int64
    own = torch.from_numpy(COORDS.astype(np.float32)).requires_grad_()
    in_pt = read_features(write_pt(tmp_path / "b.pt", {"features": torch.from_numpy(FEATURES), "coords": own}))
    np.testing.assert_array_equal(in_pt.coords(), COORDS)


def _with_coords(path: Path, coords: object) -> Path:
    return write_pt(path, {"features": torch.from_numpy(FEATURES), "coords": coords})


def _one_nan() -> torch.Tensor:
    return torch.from_numpy(COORDS).double().index_fill(0, torch.tensor(4), torch.nan)


BAD_COORDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "half of large numbers": (
        lambda p: write_h5(p / "s.h5", {"features": FEATURES, "coords": (COORDS % 30_000).astype(np.float16)}),
        "float16 up to .*, a type that is exact only up to 2048",
    ),
    "brain floats": (lambda p: _with_coords(p / "s.pt", torch.from_numpy(COORDS).bfloat16()), "not a table of numbers"),
    "sparse": (lambda p: _with_coords(p / "s.pt", torch.from_numpy(COORDS).to_sparse()), "layout is sparse_coo"),
    "uneven": (lambda p: _with_coords(p / "s.pt", [[1, 2], [3]]), "not a table of numbers"),
    "one NaN": (lambda p: _with_coords(p / "s.pt", _one_nan()), r"in 1 of 9 patches, first \(nan, nan\)"),
    "infinite": (lambda p: _with_coords(p / "s.pt", torch.full((9, 2), torch.inf)), "float32 up to inf"),
    "words": (lambda p: _with_coords(p / "s.pt", [["1", "2"]] * 9), "not a whole"),
    "two batches": (lambda p: _with_coords(p / "s.pt", torch.zeros(2, 9, 2).long()), "not a whole"),
}


@pytest.mark.parametrize("name", BAD_COORDS)
def test_coordinates_that_may_be_wrong_are_refused(tmp_path: Path, name: str) -> None:
    make, message = BAD_COORDS[name]
    found = read_features(make(tmp_path))
    assert_same(found)
    with pytest.raises(FeatureError, match=message):
        found.coords()


def test_small_whole_half_precision_coords_are_exact(tmp_path: Path) -> None:
    coords = np.arange(18).reshape(9, 2) * 120.0
    assert coords.max() < 2048
    path = write_h5(tmp_path / "a.h5", {"features": FEATURES, "coords": coords.astype(np.float16)})
    np.testing.assert_array_equal(read_features(path).coords(), coords)


def test_a_batch_of_one_slide_is_read_as_a_slide(tmp_path: Path) -> None:
    tensor = torch.from_numpy(FEATURES)
    for path in (
        write_h5(tmp_path / "a.h5", {"features": FEATURES[None], "coords": COORDS}),
        write_h5(tmp_path / "b.h5", {"features": FEATURES[None], "coords": COORDS[None]}),
        write_pt(tmp_path / "c.pt", tensor[None]),
        write_pt(tmp_path / "d.pt", FEATURES[None]),
        write_pt(tmp_path / "e.pt", {"features": tensor[None], "coords": torch.from_numpy(COORDS)[None]}),
        write_pt(tmp_path / "f.pt", [tensor[None]]),
        write_pt(tmp_path / "g.pt", [tensor[None, :4], tensor[None, 4:]]),
        write_pt(tmp_path / "h.pt", [row[None] for row in tensor]),
    ):
        found = read_features(path)
        assert_same(found)
        if path.stem in "abe":
            np.testing.assert_array_equal(found.coords(), COORDS)
    tables = {"feats": FEATURES[None].astype(np.float16), "coords": COORDS[None] * 0.25}
    um = write_h5(tmp_path / "i.h5", tables, {"": STAMP})
    np.testing.assert_array_equal(read_features(um, slide_mpp=0.25).coords(), COORDS)
