from pathlib import Path

import numpy as np
import pytest
import torch
from feature_files import COORDS, FEATURES, STAMP, assert_same, write_h5, write_pt, write_stamp, write_trident

from e2e_abmilx.data.features import FeatureError, FeatureFolder, read_features


@pytest.mark.parametrize("shape", [(0, 6), (1, 0, 6), (0,)])
def test_files_without_patches_are_found(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_pt(tmp_path / "a.pt", torch.empty(shape))
    write_h5(tmp_path / "b.h5", {"features": np.empty(shape, np.float32)})
    write_pt(tmp_path / "c.pt", torch.ones(2, 3))
    write_pt(tmp_path / "d.pt", "damaged")
    assert FeatureFolder(tmp_path).empty() == ["a", "b"]
    for name in ("a.pt", "b.h5"):
        with pytest.raises(FeatureError, match="holds no patch"):
            read_features(tmp_path / name)


def test_upper_case_endings_and_hidden_files(tmp_path: Path) -> None:
    write_trident(tmp_path / "A.H5")
    write_pt(tmp_path / "B.PT", FEATURES)
    (tmp_path / "._A.H5").write_bytes(b"\0\5\26\7")  # written by macOS on other file systems
    folder = FeatureFolder(tmp_path)
    assert list(folder.files) == ["A", "B"]
    for slide in folder.files:
        assert_same(folder.open(slide))


def test_a_folder_may_hold_files_of_several_tools(tmp_path: Path) -> None:
    write_trident(tmp_path / "TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF.h5")
    write_stamp(tmp_path / "b.h5", COORDS * 0.25, STAMP)
    write_stamp(tmp_path / "c.h5", COORDS * 0.5, STAMP)
    write_pt(tmp_path / "d.pt", FEATURES)
    (tmp_path / "notes.txt").write_text("not features")
    folder = FeatureFolder(tmp_path, slide_mpp={"b": 0.25}, assume_mpp=0.5)
    assert list(folder.files) == ["TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF", "b", "c", "d"]
    assert {folder.shape(slide) for slide in folder.files} == {(9, 6)}
    for slide in list(folder.files)[:3]:
        np.testing.assert_array_equal(folder.open(slide).coords(), COORDS)


def test_empty_and_ambiguous_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"holds no \.h5 or \.pt file of features; check the path"):
        FeatureFolder(tmp_path)
    for inside in ("h5_files", "pt_files"):
        (tmp_path / inside).mkdir()
    write_trident(tmp_path / "h5_files/s.h5")
    write_pt(tmp_path / "pt_files/s.pt", FEATURES)
    with pytest.raises(FeatureError, match=r"give one of its folders \['h5_files', 'pt_files'\]"):
        FeatureFolder(tmp_path)
    write_trident(tmp_path / "s.h5")
    write_pt(tmp_path / "s.pt", FEATURES)
    with pytest.raises(FeatureError, match=r"s\.h5 and s\.pt both belong to slide 's'; remove one"):
        FeatureFolder(tmp_path)
