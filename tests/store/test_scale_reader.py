"""Shard files: which patches may be asked for, how many files stay open, forged content."""

import os
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from google_crc32c import value as crc32c
from small_stores import textures

from e2e_abmilx.store import PatchStore, StoreError, scale_reader, scale_writer, write_store


@pytest.mark.parametrize("indices", [[-1], [20], [0, 5, 21], np.array([2**63], np.uint64)])
def test_an_index_out_of_range_is_refused(store: PatchStore, indices: list[int]) -> None:
    with pytest.raises(IndexError, match="scale 0 run from 0 to 19"):
        store.read(indices)


@pytest.mark.parametrize("indices", [[0.5], [[1, 2]], [True], ["1"]])
def test_anything_but_a_flat_list_of_integers_is_refused(store: PatchStore, indices: list[object]) -> None:
    with pytest.raises(TypeError, match="flat list of integers"):
        store.read(indices)


def test_the_number_of_open_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_writer, "PATCHES_PER_SHARD", 1)
    count = 2 * scale_reader.OPEN_SHARDS
    store = write_store(tmp_path / "a.zarr", {0.5: (np.repeat(textures(1), count, axis=0), None)})
    scale_reader._open_shard.cache_clear()
    before = len(os.listdir("/dev/fd"))
    store.read(range(count))
    assert len(os.listdir("/dev/fd")) <= before + scale_reader.OPEN_SHARDS


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ((2**40, 600), "outside the file"),
        ((0, 2**40), "outside the file"),
        ((2**64 - 1, 2**64 - 1), "patch 0 cannot be read"),
        ((0, 0), "patch 0 is damaged"),
    ],
)
def test_a_forged_index_is_refused(tmp_path: Path, entry: tuple[int, int], message: str) -> None:
    """The checksum matches but the offsets are wrong."""
    store = write_store(tmp_path / "a.zarr", {0.5: (textures(1), None)})
    shard = store.path / "0" / "patches" / "c.0.0.0.0"
    index = struct.pack("<QQ", *entry)
    shard.write_bytes(shard.read_bytes()[:-20] + index + struct.pack("<I", crc32c(index)))
    with pytest.raises(StoreError, match=message):
        store.read([0])


@pytest.mark.parametrize("jpeg", [b"no JPEG at all", imagecodecs.jpeg8_encode(textures(1, side=8)[0])])
def test_a_forged_patch_is_refused(tmp_path: Path, jpeg: bytes) -> None:
    """The checksums match but the chunk is no JPEG stream, or one of another size."""
    store = write_store(tmp_path / "a.zarr", {0.5: (textures(1), None)})
    index = struct.pack("<QQ", 0, len(jpeg) + 4)
    parts = [jpeg, struct.pack("<I", crc32c(jpeg)), index, struct.pack("<I", crc32c(index))]
    (store.path / "0" / "patches" / "c.0.0.0.0").write_bytes(b"".join(parts))
    with pytest.raises(StoreError, match="scale 0, patch 0 cannot be decoded"):
        store.read([0])
