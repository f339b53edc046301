"""The digest of features: equal for copies in any format, different for any other slide."""

import hashlib
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from feature_files import FEATURES, write_h5, write_pt, write_slideflow, write_trident

from e2e_abmilx.data.features import FeatureError, features_digest, read_features


def _digest(path: Path) -> str:
    return features_digest(read_features(path))


def test_a_copy_is_recognised_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "slideflow").mkdir()
    files = [
        write_trident(tmp_path / "a.h5"),
        write_h5(tmp_path / "batch.h5", {"features": FEATURES[None]}),
        write_h5(tmp_path / "stamp.h5", {"feats": FEATURES}),
        write_h5(tmp_path / "big_endian.h5", {"features": FEATURES.astype(">f4")}),
        write_pt(tmp_path / "tensor.pt", torch.from_numpy(FEATURES)),
        write_pt(tmp_path / "array.pt", FEATURES),
        write_pt(tmp_path / "list.pt", list(torch.from_numpy(FEATURES))),
        write_pt(tmp_path / "dict.pt", {"features": torch.from_numpy(FEATURES)}),
        write_pt(tmp_path / "double.pt", torch.from_numpy(FEATURES).double()),
        write_slideflow(tmp_path / "slideflow", None),
    ]
    assert len({_digest(path) for path in files}) == 1


def test_half_precision_is_recognised_in_either_format(tmp_path: Path) -> None:
    half = FEATURES.astype(np.float16)
    digests = {
        _digest(write_pt(tmp_path / "a.pt", torch.from_numpy(half))),
        _digest(write_trident(tmp_path / "a.h5", half)),
    }
    assert len(digests) == 1
    assert digests != {_digest(write_pt(tmp_path / "b.pt", torch.from_numpy(FEATURES)))}


def test_it_is_the_sha256_of_size_and_rows(tmp_path: Path) -> None:
    table = np.random.default_rng(1).standard_normal((31, 3)).astype(np.float32)
    content = struct.pack("<2q", 31, 3) + struct.pack("<48f", *table[::2].ravel())  # 16 of 31 rows
    expected = hashlib.sha256(content).hexdigest()[:16]
    assert _digest(write_pt(tmp_path / "a.pt", torch.from_numpy(table))) == expected


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 1000])
def test_other_features_have_other_digests(count: int, tmp_path: Path) -> None:
    table = np.random.default_rng(count).standard_normal((count, 8)).astype(np.float32)
    other = table.copy()
    other[-1, -1] = np.nextafter(other[-1, -1], np.float32(9))
    tables = [table, other, np.vstack([table, table[-1:]]), table[:, :-1], table + 1]
    digests = [_digest(write_pt(tmp_path / f"{number}.pt", found)) for number, found in enumerate(tables)]
    assert len(set(digests)) == len(tables)
    assert all(len(digest) == 16 for digest in digests)


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="NaN or infinite"):
        _digest(write_pt(tmp_path / "a.pt", np.full((3, 2), np.nan, np.float32)))


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    """Damage elsewhere goes unnoticed, because only the chunks of 16 rows are read."""
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        table = file.create_dataset("features", (50_000, 8), "float32", chunks=(64, 8), fletcher32=True, fillvalue=0.5)
        table[100:110] = 1
        damaged = table.id.get_chunk_info_by_coord((64, 0)).byte_offset
    whole = _digest(path)
    with open(path, "r+b") as file:
        file.seek(damaged)
        file.write(b"damage")
    assert _digest(path) == whole
    with pytest.raises(FeatureError, match="cannot be read"):
        read_features(path).read()
