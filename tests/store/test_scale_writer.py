"""Patches fill one shard file after another."""

from pathlib import Path

import pytest
import zarr
from small_stores import grid, psnr, textures

from e2e_abmilx.store import scale_writer, write_store
from e2e_abmilx.store.scale_writer import ScaleWriter


def test_patches_share_shard_files(path: Path) -> None:
    shards = [file for file in path.rglob("c.*") if file.parent.name == "patches"]
    assert len(shards) == 3 + 0 + 1  # 20, 0 and 5 patches in shards of seven


@pytest.mark.parametrize("count", [6, 7, 8, 14])
def test_any_number_of_patches_fits_into_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(scale_writer, "PATCHES_PER_SHARD", 7)
    store = write_store(tmp_path / "a.zarr", {0.5: (textures(count), grid(count))})
    assert (psnr(store.read(range(count)), textures(count)) > 30).all()
    assert (zarr.open_group(tmp_path / "a.zarr", mode="r")["0/patches"][:] == store.read(range(count))).all()
    assert list(store.verify()) == []


def test_an_abandoned_shard_has_no_index(tmp_path: Path) -> None:
    writer = ScaleWriter(tmp_path / "patches")
    assert writer.coords().shape == (0, 2)
    writer.append([b"one", b"two"], grid(2))
    writer.abandon()
    assert writer.num_patches == writer.patches_per_shard == 2
    assert (tmp_path / "patches/c.0.0.0.0").stat().st_size == 2 * (3 + 4)  # each with its crc32c
    assert (writer.coords() == grid(2)).all()
