"""Coordinates files of TRIDENT and CLAM: what does not fit the slide is refused."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from foreign_files import lattice, write_clam, write_trident

from e2e_abmilx.cache.imports import import_coords
from e2e_abmilx.cache.imports.coords_files import read_tiles
from e2e_abmilx.errors import SourceError
from e2e_abmilx.slides import Slide


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"drop": "patch_size_level0"}, "states neither patch_size_level0"),
        ({"drop": "patch_size"}, "states patch_size None"),
        ({"patch_size": "None"}, "states patch_size 'None'"),
        ({"patch_size": -64}, "states patch_size"),
        ({"patch_size": 10**6}, "1000000 px"),
        ({"patch_size_level0": 0}, "states patch_size_level0"),
        ({"patch_size_level0": 10**6}, "do not fit into it"),
        ({"patch_size_level0": 16}, "coarser than the"),
        ({"level0_width": 2048}, "was not made from"),
        ({"coords": lattice(300)}, "was not made from"),
        ({"coords": -lattice(10)}, "was not made from"),
        ({"coords": lattice(10) + 0.5}, "has coords float64 of"),
        ({"coords": lattice(10).T}, r"has coords int64 of \(2, 25\)"),
        ({"coords": lattice(10)[:, 0]}, r"has coords int64 of \(25,\)"),
        ({"coords": np.empty((0, 2), int)}, r"has coords int64 of \(0, 2\)"),
    ],
)
def test_broken_trident_files_fail_their_slide(
    slides: Path, tmp_path: Path, changed: dict[str, Any], reason: str
) -> None:
    coords = changed.pop("coords", lattice(128)) if "coords" in changed else lattice(128)
    write_trident(tmp_path / "h5/a_patches.h5", coords, **changed)
    write_trident(tmp_path / "h5/b_patches.h5", lattice(128))
    bad, good = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
    assert (bad.status, good.status) == ("failed", "done")
    assert re.search(reason, bad.reason)
    assert not (tmp_path / "out/a.zarr").exists()


@pytest.mark.parametrize("changed", [{"level": 9}, {"downsample": (16.0, 16.0)}, {"patch_level": -1}])
def test_broken_clam_files_fail_their_slide(slides: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    level = changed.pop("level", 1)
    write_clam(tmp_path / "h5/a.h5", lattice(128), **({"patch_level": level} | changed))
    (row,) = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
    assert row.status == "failed"
    assert "was not made from" in row.reason or "states patch_level" in row.reason


def test_files_without_coordinates_fail_their_slide(slides: Path, tmp_path: Path) -> None:
    good = write_trident(tmp_path / "h5/b_patches.h5", lattice(128))
    (tmp_path / "h5/a.h5").write_bytes(good.read_bytes()[:1000])
    (tmp_path / "h5/unknown_patches.h5").write_bytes(good.read_bytes())
    with h5py.File(tmp_path / "h5/b.two_patches.h5", "w") as file:
        file.create_group("coords")
    rows = {row.slide: row for row in import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)}
    assert {name for name, row in rows.items() if row.status == "done"} == {"b"}
    assert "a.h5 cannot be read" in rows["a"].reason
    assert "b.two_patches.h5 cannot be read" in rows["b.two_patches"].reason
    assert "none in" in rows["unknown"].reason
    with pytest.raises(SourceError, match=r"holds no \.h5 file"):
        import_coords(slides, slides, tmp_path / "out")
    shutil.copy(good, tmp_path / "h5/b.h5")
    with pytest.raises(SourceError, match="both belong to 'b'"):
        import_coords(tmp_path / "h5", slides, tmp_path / "out")


def test_a_missing_extra_is_named(slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_trident(tmp_path / "h5/a_patches.h5", lattice(128))
    monkeypatch.setitem(sys.modules, "h5py", None)
    (row,) = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
    assert "pip install e2e-abmilx[features]" in row.reason


def test_the_footprint_is_in_level_0_pixels(slides: Path, tmp_path: Path) -> None:
    with Slide(slides / "a.tiff") as slide:
        trident = read_tiles(write_trident(tmp_path / "h5/a_patches.h5", lattice(128)), slide)
        clam = read_tiles(write_clam(tmp_path / "h5/a.h5", lattice(128), level=2), slide)
    assert (trident.patch_size, trident.footprint) == (64, 128)
    assert (clam.patch_size, clam.footprint) == (64, 256)
    assert (trident.coords == lattice(128)).all()
