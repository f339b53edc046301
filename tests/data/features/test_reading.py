from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from feature_files import COORDS, FEATURES, write_h5, write_pt, write_trident

from e2e_abmilx.data.features import FeatureError, read_features

BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty TRIDENT": (lambda p: write_trident(p / "s.h5", FEATURES[:0]), r"holds no patch: .* \(0, 6\); extract"),
    "slide features": (lambda p: write_h5(p / "s.h5", {"features": FEATURES[0]}), "give the features of patches"),
    "patches": (lambda p: write_h5(p / "s.h5", {"coords": COORDS}), r"holds \['coords'\], but none of features"),
    "unknown": (lambda p: write_h5(p / "s.h5", {"x": COORDS, "y": COORDS}), r"holds \['x', 'y'\], but none"),
    "whole numbers": (lambda p: write_h5(p / "s.h5", {"features": COORDS}), "no real numbers under 'features'"),
    "no HDF5": (lambda p: write_pt(p / "s.h5", torch.ones(2, 2)), "cannot be read .*; write it again"),
    "other ending": (lambda p: p / "s.npy", r"ends in none of \.h5, \.pt"),
    "absent": (lambda p: p / "s.pt", "cannot be read as tensors"),
    "text": (lambda p: write_pt(p / "s.pt", "features"), "holds a str, not a tensor"),
    "dict": (lambda p: write_pt(p / "s.pt", {"feat": torch.ones(2, 2)}), r"holds \['feat'\]; features must be"),
    "no list": (lambda p: write_pt(p / "s.pt", []), "holds a list of .*, not a tensor"),
    "mixed list": (lambda p: write_pt(p / "s.pt", [torch.ones(3), "x"]), "a list of"),
    "uneven list": (lambda p: write_pt(p / "s.pt", [torch.ones(3), torch.ones(4)]), "not a tensor .* or a list"),
    "empty tensor": (lambda p: write_pt(p / "s.pt", torch.ones(0, 3)), "holds no patch"),
    "one vector": (lambda p: write_pt(p / "s.pt", torch.ones(3)), r"features of shape \(3,\), not"),
    "integers": (lambda p: write_pt(p / "s.pt", torch.ones(3, 3).long()), "holds torch.int64, not real numbers"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(tmp_path: Path, name: str) -> None:
    make, message = BROKEN[name]
    with pytest.raises(FeatureError, match=message):
        read_features(make(tmp_path))


def test_truncated_files_are_named(tmp_path: Path) -> None:
    for path in (write_trident(tmp_path / "s.h5"), write_pt(tmp_path / "s.pt", torch.from_numpy(FEATURES))):
        whole = path.read_bytes()
        for length in (0, 7, len(whole) // 2, len(whole) - 9):
            path.write_bytes(whole[:length])
            with pytest.raises(FeatureError, match="cannot be read"):
                read_features(path).read()
