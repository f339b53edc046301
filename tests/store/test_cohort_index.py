"""A cohort index never hides that a store was rebuilt, deleted, renamed or added, whatever state its file is in."""

import dataclasses
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from local_bucket import FaultProxy
from small_stores import textures

from e2e_abmilx.store import CohortIndex, PatchStore, StoreError, StoreFacts, cohort_index, objects, write_store
from e2e_abmilx.store.cohort_index import INDEX, add_to_index, read_facts
from e2e_abmilx.store.facts import decode_index, encode_index
from e2e_abmilx.store.locations import ObjectUrl


def _write(path: Path, count: int = 3, side: int = 16) -> Path:
    """Write a store, in place of one that is there."""
    shutil.rmtree(path, ignore_errors=True)
    return write_store(path, {0.5: (textures(count, side), None), math.nan: (textures(1, side), None)}).path


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Index stores that were made just now: the hardest case, in which only their stamps tell them apart."""
    monkeypatch.setattr(cohort_index, "SETTLED_NS", -1_000_000_000)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder of the stores a, b and c, all indexed."""
    folder = tmp_path / "cache"
    for number, name in enumerate("abc", 3):
        _write(folder / f"{name}.zarr", number)
    _look(folder)
    assert sorted(_file(folder)) == ["a", "b", "c"]
    return folder


def _file(folder: Path) -> dict[str, StoreFacts]:
    return decode_index((folder / INDEX).read_bytes())


def _look(folder: Path, names: str = "abc") -> CohortIndex:
    """Look at stores through the index, and save it."""
    index = CohortIndex(folder)
    for name in names:
        found, store = index[name], PatchStore(folder / f"{name}.zarr")
        assert found.counts == tuple(store.num_patches(scale) for scale in range(len(store.scales)))
        assert (found.scales, found.patch_size, found.checksum) == (store.scales, store.patch_size, store.checksum)
    index.save()
    return index


def _opened(index: CohortIndex) -> list[str]:
    return sorted(index._opened)


def test_unchanged_stores_are_not_opened_again(cache: Path) -> None:
    before = (cache / INDEX).stat()
    assert _opened(_look(cache)) == []
    assert os.path.samestat((cache / INDEX).stat(), before)  # nor is the index written


def test_a_store_that_is_known_is_not_read(cache: Path) -> None:
    """The index answers, even wrongly, where a row has the stamp of the file."""
    rows = _file(cache)
    rows["a"] = dataclasses.replace(rows["a"], counts=(77, 7))
    (cache / INDEX).write_bytes(encode_index(rows.values()))
    assert CohortIndex(cache)["a"].counts == (77, 7)


@pytest.mark.parametrize(("count", "side"), [(3, 32), (9, 16)])
def test_a_store_rebuilt_at_the_same_mtime_is_seen(cache: Path, count: int, side: int) -> None:
    old = (cache / "a.zarr/zarr.json").stat()
    path = _write(cache / "a.zarr", count, side)
    os.utime(path / "zarr.json", ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (path / "zarr.json").stat().st_size == old.st_size
    assert _opened(_look(cache)) == ["a"]
    assert (CohortIndex(cache)["a"].counts[0], CohortIndex(cache)["a"].patch_size) == (count, side)


def test_a_store_rebuilt_with_an_older_clock_is_seen(cache: Path) -> None:
    path = _write(cache / "a.zarr", 9)
    os.utime(path / "zarr.json", ns=(0, 10**18))  # 2001
    assert _opened(_look(cache)) == ["a"]


def test_a_file_overwritten_in_place_is_seen(cache: Path, tmp_path: Path) -> None:
    """The inode, the size and, by utime, the mtime stay."""
    path, old = cache / "a.zarr/zarr.json", (cache / "a.zarr/zarr.json").stat()
    path.write_bytes((_write(tmp_path / "other.zarr", 3, 32) / "zarr.json").read_bytes())
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    now = path.stat()
    assert (now.st_ino, now.st_size, now.st_mtime_ns) == (old.st_ino, old.st_size, old.st_mtime_ns)
    assert CohortIndex(cache)["a"].patch_size == 32


def test_a_store_edited_by_hand_is_refused(cache: Path) -> None:
    path = cache / "a.zarr/zarr.json"
    path.write_text(path.read_text().replace('"patch_size": 16', '"patch_size": 61'))
    with pytest.raises(StoreError, match="was edited or damaged"):
        CohortIndex(cache)["a"]


def test_a_coarse_clock_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that counts minutes and reuses inodes, a store rebuilt at once has the stamp of the old one."""
    exact, minute = cohort_index._stamp, 60 * 10**9

    def coarse(folder: Path, slide: str) -> tuple[int, ...]:
        return (1, 1, *(time_ns // minute * minute for time_ns in exact(folder, slide)[2:]))

    monkeypatch.setattr(cohort_index, "SETTLED_NS", 3 * minute // 2)
    monkeypatch.setattr(cohort_index, "_stamp", coarse)
    for count in (3, 9, 4):
        _write(tmp_path / "a.zarr", count)
        assert _look(tmp_path, "a")["a"].counts == (count, 1)


def test_young_stores_are_not_indexed_yet(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort_index, "SETTLED_NS", 3_000_000_000)
    _write(cache / "a.zarr", 9)
    index = _look(cache)
    assert (_opened(index), _file(cache)["a"].counts) == ([], (3, 1))  # the old row stays, and does not count
    assert CohortIndex(cache)["a"].counts == (9, 1)


def test_a_store_from_the_future_is_always_opened(cache: Path) -> None:
    """As after a clock that went backwards."""
    future = time.time_ns() + 3600 * 10**9
    os.utime(cache / "a.zarr/zarr.json", ns=(future, future))
    assert _opened(_look(cache)) == []
    assert _file(cache)["a"].stamp[2] < future


def test_a_deleted_store_is_refused_and_leaves_the_index(cache: Path) -> None:
    shutil.rmtree(cache / "b.zarr")
    with pytest.raises(StoreError) as by_index:
        CohortIndex(cache)["b"]
    with pytest.raises(StoreError) as opened:
        PatchStore(cache / "b.zarr")
    assert str(by_index.value) == str(opened.value)
    _write(cache / "d.zarr")
    _look(cache, "acd")
    assert sorted(_file(cache)) == ["a", "c", "d"]


def test_a_store_without_its_json_is_refused(cache: Path) -> None:
    (cache / "b.zarr/zarr.json").unlink()
    with pytest.raises(StoreError, match="no patch store"):
        CohortIndex(cache)["b"]


def test_renamed_and_exchanged_stores_are_seen(cache: Path) -> None:
    (cache / "a.zarr").rename(cache / "t.zarr")
    (cache / "b.zarr").rename(cache / "a.zarr")
    (cache / "t.zarr").rename(cache / "b.zarr")
    (cache / "c.zarr").rename(cache / "d.zarr")
    index = _look(cache, "abd")
    assert [index[name].counts[0] for name in "abd"] == [4, 3, 5]
    assert [index[name].name for name in "abd"] == ["a", "b", "d"]
    with pytest.raises(StoreError, match="no patch store"):
        index["c"]


def test_links_to_other_stores_are_seen(cache: Path, tmp_path: Path) -> None:
    for count in (6, 7):
        _write(tmp_path / f"{count}.zarr", count)
    link = cache / "link.zarr"
    link.symlink_to(tmp_path / "6.zarr")
    index = CohortIndex(cache)
    assert index["link"].counts == (6, 1)
    index.save()
    assert _opened(CohortIndex(cache)) == []
    link.unlink()
    link.symlink_to(tmp_path / "7.zarr")
    assert CohortIndex(cache)["link"].counts == (7, 1)


@pytest.mark.parametrize("length", [0, 1, 4, 5, 100, -1])
def test_a_truncated_index_is_made_again(cache: Path, length: int) -> None:
    whole = (cache / INDEX).read_bytes()
    (cache / INDEX).write_bytes(whole[:length])
    assert _opened(_look(cache)) == ["a", "b", "c"]
    assert (cache / INDEX).read_bytes() == whole


def test_the_index_of_another_folder_is_not_believed(cache: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for name in "abc":
        _write(other / f"{name}.zarr", 8, 32)
    shutil.copy2(cache / INDEX, other / INDEX)
    assert _opened(_look(other)) == ["a", "b", "c"]


def test_an_index_without_stamps_is_not_believed(cache: Path) -> None:
    """That of a bucket, whose stores were fetched by other means."""
    facts = [StoreFacts.of(PatchStore(cache / f"{name}.zarr")) for name in "abc"]
    (cache / INDEX).write_bytes(encode_index(facts))
    _write(cache / "a.zarr", 9)
    shutil.rmtree(cache / "b.zarr")
    assert CohortIndex(cache)["a"].counts == (9, 1)
    with pytest.raises(StoreError, match="no patch store"):
        CohortIndex(cache)["b"]


def test_a_copied_cache_is_indexed_again(cache: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, tmp_path / "copy")
    assert _opened(_look(tmp_path / "copy")) == ["a", "b", "c"]


def test_a_folder_that_cannot_be_written_still_works(cache: Path) -> None:
    """By a folder in the way of the index: rights do not bind the superuser, who runs tests in containers."""
    (cache / INDEX).unlink()
    (cache / INDEX).mkdir()
    assert _opened(_look(cache)) == ["a", "b", "c"]
    assert [file.name for file in cache.iterdir() if file.name.startswith(".")] == []  # no partial file is left


def test_an_empty_or_missing_folder(tmp_path: Path) -> None:
    CohortIndex(tmp_path / "absent").save()
    with pytest.raises(StoreError, match="no patch store"):
        CohortIndex(tmp_path / "absent")["a"]
    assert list(tmp_path.iterdir()) == []


READER = """
import sys
from pathlib import Path
from e2e_abmilx.store import CohortIndex, cohort_index
cohort_index.SETTLED_NS = -1_000_000_000
for _ in range(100):
    index = CohortIndex(Path(sys.argv[1]))
    assert index["a"].counts[0] >= 5
    index["b"]
    index.save()
"""


def test_processes_that_index_while_stores_are_rebuilt_see_them(cache: Path, tmp_path: Path) -> None:
    shutil.rmtree(cache / "a.zarr")
    (cache / "a.zarr").symlink_to(_write(tmp_path / "5.zarr", 5))
    readers = [subprocess.Popen([sys.executable, "-c", READER, str(cache)]) for _ in range(2)]
    count = 5
    while any(reader.poll() is None for reader in readers) and count < 200:
        count += 1
        (cache / "next").symlink_to(_write(tmp_path / f"{count}.zarr", count))
        (cache / "next").replace(cache / "a.zarr")
        assert CohortIndex(cache)["a"].counts[0] == count
        _look(cache)
    assert [reader.wait(timeout=60) for reader in readers] == [0, 0]
    assert count > 5
    _look(cache)


def test_coordinates_do_not_matter(tmp_path: Path) -> None:
    """Stores with and without them are indexed alike."""
    coords = np.zeros((3, 2), np.int64)
    write_store(tmp_path / "a.zarr", {0.5: (textures(3), coords)})
    _look(tmp_path, "a")
    assert _file(tmp_path)["a"].counts == (3,)


def test_facts_in_a_bucket_are_read_from_the_stores_not_from_the_index(bucket: FaultProxy, cache: Path) -> None:
    to = ObjectUrl("s3://cohorts/x")
    name = CohortIndex(cache).slides()[0]
    objects.put(to, f"{name}.zarr/zarr.json", (cache / f"{name}.zarr/zarr.json").read_bytes())
    objects.put(to, "half.zarr/0/coords/c.0.0", b"a store that is being written")
    facts = StoreFacts.of(PatchStore(cache / f"{name}.zarr"))
    add_to_index(to, {"gone": dataclasses.replace(facts, name="gone")})
    assert read_facts(to, [name, "half", "gone"]) == {name: facts}
    first = iter([True])
    bucket.fault = lambda method, path: "flip" if next(first, False) else None
    assert read_facts(to, [name]) == {name: facts}
    bucket.fault = lambda method, path: "flip"
    with pytest.raises(StoreError, match="damaged"):
        read_facts(to, [name])
