"""The disk cache holds its bound, loses nothing when its processes are killed, and never gives back damage."""

import errno
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_bucket import FaultProxy

from e2e_abmilx.cache.push import push
from e2e_abmilx.store import PatchStore, disk_cache
from e2e_abmilx.store.disk_cache import DiskCache
from e2e_abmilx.store.locations import ObjectUrl

SIZE = 1000


def content(key: object) -> bytes:
    return random.Random(str(key)).randbytes(SIZE)


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/*") if path.name != "used"]


def size(folder: Path) -> int:
    total = 0
    for path in entries(folder):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskCache:
    """A cache of a single part."""
    monkeypatch.setattr(disk_cache, "PARTS", 1)
    return DiskCache(tmp_path / "kept", 10 * (SIZE + 4))


def test_the_least_recently_used_entries_are_removed(cache: DiskCache) -> None:
    for key in range(10):
        cache.put(str(key), content(key))
        os.utime(cache._path(str(key)), ns=(key, key))
    assert cache.get("0") == content(0)  # now the one used last
    cache.put("new", content("new"))
    kept = [key for key in (*map(str, range(10)), "new") if cache.get(key) == content(key)]
    assert kept == ["0", *"23456789", "new"]
    assert size(cache.folder) <= cache.limit


def test_the_bound_holds_over_parts_and_large_entries_are_not_kept(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, disk_cache.PARTS * 3 * (SIZE + 4))
    for key in range(600):
        cache.put(str(key), content(key))
        assert key % 50 or size(tmp_path) <= cache.limit
    assert len(entries(tmp_path)) > disk_cache.PARTS
    cache.put("large", bytes(cache.limit // disk_cache.PARTS))
    assert cache.get("large") is None


def test_damage_is_not_given_back(cache: DiskCache) -> None:
    for harm in (lambda data: data[:-1], lambda data: b"", lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:]):
        cache.put("a", content("a"))
        path = cache._path("a")
        path.write_bytes(harm(path.read_bytes()))
        assert cache.get("a") is None
        assert not path.exists()


def test_a_part_without_its_count_is_counted(cache: DiskCache) -> None:
    for key in range(10):
        cache.put(str(key), content(key))
    for known in (b"", b"x"):
        (cache.folder / "00/used").write_bytes(known)
        cache.put(f"new {known!r}", content("new"))
        assert size(cache.folder) <= cache.limit


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_is_warned_of_once(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    cache.put("a", content("a"))
    monkeypatch.setattr(disk_cache, "_warned", set())

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "ftruncate", refuse)
    with caplog.at_level(logging.WARNING):
        for key in "bcd":
            cache.put(key, content(key))
            assert cache.get(key) is None
    assert cache.get("a") == content("a")
    assert [record.message for record in caplog.records] == [
        f"{cache.folder} cannot keep what was read ({os.strerror(number)}); reading goes on from the bucket"
    ]
    assert [path.name for path in entries(cache.folder)] == [cache._path("a").name]


WRITER = """
import random, sys
from pathlib import Path
from e2e_abmilx.store import disk_cache
disk_cache.PARTS = 2
cache = disk_cache.DiskCache(Path(sys.argv[1]), int(sys.argv[2]))
print("ready", flush=True)
while True:
    key = str(random.randrange(1000))
    data = random.Random(key).randbytes(1000)
    found = cache.get(key)
    assert found in (None, data)
    cache.put(key, data)
"""


def test_twenty_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes that share the cache, one is killed at a random moment, twenty times."""
    monkeypatch.setattr(disk_cache, "PARTS", 2)
    cache, rng = DiskCache(tmp_path / "kept", 100 * (SIZE + 4)), random.Random(0)

    def start() -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", WRITER, str(cache.folder), str(cache.limit)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    running = [start(), start()]
    for kill in range(20):
        time.sleep(rng.uniform(0.01, 0.1))
        assert running[0].poll() is None
        os.kill(running[0].pid, signal.SIGKILL)
        running.pop(0).communicate()
        assert size(cache.folder) <= cache.limit + 2 * (SIZE + 4)  # while it is counted, another entry may come
        for key in map(str, range(1000)):
            assert cache.get(key) in (None, content(key))
        if kill < 19:
            running.append(start())
    for process in running:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    for key in range(1000, 1300):
        cache.put(str(key), content(key))
    assert size(cache.folder) <= cache.limit
    assert not [path for path in entries(cache.folder) if path.name.startswith(".")]
    assert cache.get("1299") == content(1299)


def test_patches_are_read_from_the_disk(bucket: FaultProxy, stores: Path, tmp_path: Path) -> None:
    to = ObjectUrl("s3://cohorts/kept")
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "slide-000.zarr").symlink_to(stores / "slide-000.zarr")
    assert push(folder, to) == []
    cache = DiskCache(tmp_path / "kept", 10**9)
    direct, kept = PatchStore(to / "slide-000.zarr"), PatchStore(to / "slide-000.zarr", cache)
    patches = range(direct.num_patches())
    expected = direct.read(patches)
    assert (kept.read(patches[3:9]) == expected[3:9]).all()
    assert (kept.read(patches) == expected).all()
    bucket.requests.clear()
    assert (kept.read(patches) == expected).all()
    assert bucket.requests == []
    harmed = entries(cache.folder)[0]
    harmed.write_bytes(harmed.read_bytes()[::-1])
    assert (kept.read(patches) == expected).all()
    assert len(bucket.gets()) == 1
    turn = iter([True])
    for path in entries(cache.folder):
        path.unlink()
    bucket.fault = lambda method, path: "flip" if next(turn, False) else None
    assert (kept.read(patches) == expected).all()
    assert (kept.read(patches) == expected).all()
