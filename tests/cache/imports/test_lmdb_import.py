"""Imported databases: the JPEG streams are unchanged, and slides that cannot be imported fail alone."""

import math
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import lmdb
import pytest
from foreign_files import P, jpeg, write_lmdb
from stored_patches import snapshot

from e2e_abmilx.cache import CacheError
from e2e_abmilx.cache.imports import import_lmdb
from e2e_abmilx.cache.manifest import read_manifest
from e2e_abmilx.cache.tiling import TilingError
from e2e_abmilx.errors import SourceError
from e2e_abmilx.store import PatchStore


def read_lmdb(path: Path) -> dict[str, Any]:
    """Return all values of a trusted database."""
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as database, database.begin() as view:
        return {key.decode(): pickle.loads(value) for key, value in view.cursor()}


@pytest.fixture
def pair(shared: Path) -> tuple[Path, Path]:
    folder = shared / "reference/lmdb_sample"
    return folder / "tiny_256_80_level1.lmdb", folder / "tiny_256_80_level1_512.lmdb"


def test_the_authors_databases_are_imported_unchanged(pair: tuple[Path, Path], tmp_path: Path) -> None:
    rows = import_lmdb(pair[0], tmp_path, coarse=pair[1], workers=2)
    databases = [read_lmdb(path) for path in pair]
    assert [row.slide for row in rows] == sorted(databases[0]["__slide__"])
    assert {row.status for row in rows} == {"done"}
    assert read_manifest(tmp_path) == {row.slide: row for row in rows}
    for row in rows:
        store = PatchStore(tmp_path / f"{row.slide}.zarr")
        assert list(store.verify()) == []
        assert store.patch_size == 256
        assert all(math.isnan(mpp) for mpp in store.scales)
        for scale, database in enumerate(databases):
            count = database["__pn__"][row.slide]
            assert store.num_patches(scale) == count
            assert (store.coords(scale) == -1).all()
            streams = [database[f"{row.slide}-{i}"] for i in range(count)]  # in numerical order: 10 comes after 9
            assert store.read_encoded(range(count), scale) == streams
    assert max(databases[0]["__pn__"].values()) > 10


def test_a_second_call_imports_only_what_is_missing(pair: tuple[Path, Path], tmp_path: Path) -> None:
    first = import_lmdb(pair[0], tmp_path, mpp=(0.5,), workers=1)
    before = snapshot(tmp_path)
    shutil.rmtree(tmp_path / f"{first[1].slide}.zarr")
    (tmp_path / f".{first[1].slide}.zarr.partial-killed").mkdir()
    assert [row.slide for row in import_lmdb(pair[0], tmp_path, mpp=("20x",), workers=1)] == [
        row.slide for row in first
    ]
    after = snapshot(tmp_path)
    assert {path for path in before if before[path] != after[path]} == {
        path for path in before if first[1].slide in str(path)
    }
    assert not list(tmp_path.glob(".*partial*"))
    assert PatchStore(tmp_path / f"{first[0].slide}.zarr").scales == (0.5,)


def test_other_settings_and_sources_are_refused(tmp_path: Path) -> None:
    slides = {"a": [jpeg(0), jpeg(1)]}
    path = write_lmdb(tmp_path / "one.lmdb", slides)
    import_lmdb(path, tmp_path / "out", workers=1)
    with pytest.raises(CacheError, match=r"mpp was \[None\] and is now \[1\.0\]"):
        import_lmdb(path, tmp_path / "out", mpp=(1.0,), workers=1)
    path.unlink()
    write_lmdb(path, {"a": [jpeg(2)]})
    with pytest.raises(CacheError, match="fingerprints"):
        import_lmdb(path, tmp_path / "out", workers=1)


def test_slides_that_one_database_lacks_fail(tmp_path: Path) -> None:
    fine = write_lmdb(tmp_path / "fine.lmdb", {"a": [jpeg(0)], "b": [jpeg(1)], "empty": []})
    coarse = write_lmdb(tmp_path / "coarse.lmdb", {"b": [jpeg(2)], "c": [jpeg(3)], "empty": [jpeg(4)]})
    rows = {row.slide: row for row in import_lmdb(fine, tmp_path / "out", coarse=coarse, workers=1)}
    assert {name for name, row in rows.items() if row.status == "done"} == {"b"}
    assert "coarse.lmdb has no patch of slide 'a'" in rows["a"].reason
    assert "fine.lmdb has no patch of slide 'c'" in rows["c"].reason
    assert "fine.lmdb has no patch of slide 'empty'" in rows["empty"].reason
    assert read_manifest(tmp_path / "out") == rows
    with pytest.raises(SourceError, match="fine and coarse are both"):
        import_lmdb(fine, tmp_path / "out", coarse=fine)
    with pytest.raises(SourceError, match="one number per database, here 2"):
        import_lmdb(fine, tmp_path / "out", coarse=coarse, mpp=(0.5,))
    with pytest.raises(TilingError, match="different positive"):
        import_lmdb(fine, tmp_path / "out", coarse=coarse, mpp=(0.5, -1))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (jpeg(0, progressive=True), "patch 1 .* complete baseline"),
        (jpeg(0, side=2 * P), r"patch 1 .* \(64, 64, 3\), not \(32, 32, 3\)"),
        (jpeg(0)[:-20], "patch 1 .* complete baseline"),
        (jpeg(0)[:300] + b"\xff\xd9", "patch 1 "),
        (b"", "patch 1 .* complete baseline"),
        ("text", "a str instead of JPEG bytes at bad-1"),
        ([b"list"], "a list instead of JPEG bytes at bad-1"),
    ],
)
def test_a_bad_patch_fails_its_slide(tmp_path: Path, value: object, reason: str) -> None:
    slides = {"bad": [jpeg(0), jpeg(1)], "good": [jpeg(2)]}
    path = write_lmdb(tmp_path / "one.lmdb", slides, {"bad-1": pickle.dumps(value)})
    bad, good = import_lmdb(path, tmp_path / "out", workers=1)
    assert (bad.status, good.status) == ("failed", "done")
    assert re.search(reason, bad.reason)
    assert sorted(file.name for file in (tmp_path / "out").iterdir() if "zarr" in file.name) == ["good.zarr"]


def test_a_missing_patch_fails_its_slide(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "one.lmdb", {"a": [jpeg(0), jpeg(1)]}, {"a-1": b""})
    (row,) = import_lmdb(path, tmp_path / "out", workers=1)
    assert "no value at a-1" in row.reason


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", ".hidden", "a/b", "a\\b", "", "n\n", "\ud800", "x" * 300])
@pytest.mark.parametrize("count", [0, 1])
def test_names_cannot_leave_the_output_folder(tmp_path: Path, name: str, count: int) -> None:
    path = write_lmdb(tmp_path / "one.lmdb", {"a": [jpeg(0)]}, {"__pn__": pickle.dumps({name: count})})
    (row,) = import_lmdb(path, tmp_path / "out", workers=1)
    assert "cannot name a file" in row.reason
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.lmdb", "out"]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["manifest.csv"]
