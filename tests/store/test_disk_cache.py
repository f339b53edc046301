"""The disk cache holds its bound, loses nothing when its processes are killed, and never gives back damage."""

import fcntl
import functools
import itertools
import logging
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from local_bucket import FaultProxy

from e2e_abmilx.cache.push import push
from e2e_abmilx.errors import InputError
from e2e_abmilx.store import PatchStore, disk_cache
from e2e_abmilx.store.disk_cache import MARKER, PARTS, DiskCache
from e2e_abmilx.store.locations import ObjectUrl
from e2e_abmilx.store.object_scale import BLOCK

SIZE = 1000
FILE = SIZE + 4


@functools.cache
def content(key: object) -> bytes:
    return random.Random(str(key)).randbytes(SIZE)


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/*") if path.name != "used"]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in entries(folder))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskCache:
    """A cache of a single part, which holds ten entries."""
    monkeypatch.setattr(disk_cache, "PARTS", 1)
    monkeypatch.setattr(disk_cache, "_warned", set())
    return DiskCache(tmp_path / "kept", 10 * FILE)


def test_the_least_recently_used_entries_are_removed(cache: DiskCache) -> None:
    for key in range(10):
        cache.put(str(key), content(key))
        os.utime(cache._path(str(key)), ns=(key, key))
    assert len(entries(cache.folder)) == 10
    assert cache.get("0") == content(0)  # now the one used last
    cache.put("new", content("new"))
    kept = [key for key in (*map(str, range(10)), "new") if cache.get(key) == content(key)]
    assert kept == ["0", *"23456789", "new"]
    assert size(cache.folder) <= cache.limit


def test_the_bound_holds_over_parts_and_large_entries_are_not_kept(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, PARTS * 3 * FILE)
    for key in range(600):
        cache.put(str(key), content(key))
        assert key % 50 or size(tmp_path) <= cache.limit
    assert len(entries(tmp_path)) > PARTS
    cache.put("large", bytes(cache.limit // PARTS))
    assert cache.get("large") is None


def test_each_of_two_limits_holds_when_its_cache_writes(cache: DiskCache) -> None:
    small = DiskCache(cache.folder, 3 * FILE)
    for key in range(10):
        cache.put(str(key), content(key))
    small.put("new", content("new"))
    assert size(cache.folder) <= small.limit
    assert small.get("new") == content("new")
    for key in range(20, 30):
        cache.put(str(key), content(key))
    assert small.limit < size(cache.folder) <= cache.limit


def test_damage_is_not_given_back(cache: DiskCache) -> None:
    for harm in (lambda data: data[:-1], lambda data: b"", lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:]):
        cache.put("a", content("a"))
        path = cache._path("a")
        path.write_bytes(harm(path.read_bytes()))
        assert cache.get("a") is None
        assert not path.exists()


@pytest.mark.parametrize("known", [None, b"", b"x" * 20, b"0" * 5, b"0" * 25])
def test_a_part_without_a_sound_count_is_counted(cache: DiskCache, known: bytes | None) -> None:
    for key in range(10):
        cache.put(str(key), content(key))
    used = cache.folder / "00/used"
    used.unlink() if known is None else used.write_bytes(known)
    cache.put("new", content("new"))
    assert size(cache.folder) <= cache.limit
    assert int(used.read_bytes()) == size(cache.folder)


def test_only_a_new_folder_an_empty_one_or_a_cache_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "kept"
    cache = DiskCache(folder, 10**9)
    assert cache.get("a") is None
    assert not folder.parent.exists()  # before there is anything to keep
    cache.put("a", content("a"))
    assert DiskCache(folder, 10**8).get("a") == content("a")
    for others in (tmp_path, folder / MARKER):
        with pytest.raises(InputError, match=rf"{others} (holds files|cannot be a local cache \(Not a directory\))"):
            DiskCache(others, 10**9)


def test_a_folder_may_be_deleted_and_is_not_taken_from_others(
    cache: DiskCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.put("a", content("a"))
    shutil.rmtree(cache.folder)
    assert cache.get("a") is None
    cache.put("a", content("a"))
    assert pickle.loads(pickle.dumps(cache)).get("a") == content("a")
    shutil.rmtree(cache.folder)
    cache.folder.mkdir()
    (cache.folder / "thesis.txt").write_text("mine")
    cache.put("a", content("a"))
    assert [path.name for path in cache.folder.iterdir()] == ["thesis.txt"]
    assert "cannot keep what was read (it holds other files)" in caplog.text


def test_a_writer_whose_lock_is_deleted_keeps_nothing(cache: DiskCache, caplog: pytest.LogCaptureFixture) -> None:
    """It would write without the lock of the new folder, and uncounted."""
    cache.put("a", content("a"))
    with (cache.folder / "00/used").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writer = threading.Thread(target=cache.put, args=("b", content("b")))
        writer.start()
        writer.join(0.05)
        shutil.rmtree(cache.folder)
        cache.put("c", content("c"))
    writer.join()
    assert [cache.get(key) for key in "abc"] == [None, None, content("c")]
    assert not caplog.messages


def test_what_the_disk_refuses_is_warned_of_once(cache: DiskCache, caplog: pytest.LogCaptureFixture) -> None:
    cache.put("a", content("a"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, before[1]))
    try:
        for key in "bcd":
            cache.put(key, content(key))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caplog.messages == [
        f"{cache.folder} cannot keep what was read (File too large); reading goes on from the bucket"
    ]
    assert entries(cache.folder) == [cache._path("a")]
    cache.put("b", content("b"))
    assert [cache.get(key) for key in "ab"] == [content("a"), content("b")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_and_a_read_only_disk(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = DiskCache(small_disk / "kept", 10**9)
    for state in ("full", "read-only"):
        monkeypatch.setattr(disk_cache, "_warned", set())
        if state == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        with caplog.at_level(logging.WARNING):
            for key in range(100):
                cache.put(str(key), content(key))
        kept = [cache.get(str(key)) for key in range(100)]
        assert all(data in (None, content(key)) for key, data in enumerate(kept))
        assert 5 < sum(data is not None for data in kept) < 20
        assert not list(small_disk.rglob("partial"))
    assert [message.partition("(")[2].partition(")")[0] for message in caplog.messages] == [
        "No space left on device",
        "Read-only file system",
    ]


def test_a_folder_that_may_not_be_written(cache: DiskCache, caplog: pytest.LogCaptureFixture) -> None:
    if not os.geteuid():
        pytest.skip("root may write everywhere")
    cache.put("a", content("a"))
    (cache.folder / "00").chmod(0o555)
    (cache.folder / "00/used").chmod(0o444)
    cache.put("b", content("b"))
    assert [cache.get(key) for key in "ab"] == [content("a"), None]
    assert "Permission denied" in caplog.text
    (cache.folder / "00").chmod(0o755)


def write_for_ever(cache: DiskCache, done: Path, seed: int) -> None:
    """Put entries, and say which are kept."""
    rng = random.Random(seed)
    with done.open("ab", buffering=0) as file:
        for key in (rng.randrange(1000) for _ in itertools.count()):
            assert cache.get(str(key)) in (None, content(key))
            cache.put(str(key), content(key))
            file.write(b"%d\n" % key)


@pytest.mark.parametrize(("held", "kills"), [(4 * PARTS, 20), (2000 * PARTS, 5)], ids=["bound", "nothing is lost"])
@pytest.mark.usefixtures("one_bucket")  # the fork server keeps its first environment, and later tests need the bucket's
def test_kills(tmp_path: Path, held: int, kills: int) -> None:
    """Of two processes that share the cache, one is killed at a random moment, again and again."""
    cache, rng, done = DiskCache(tmp_path / "kept", held * FILE), random.Random(0), tmp_path / "done"
    context = multiprocessing.get_context("forkserver")

    def start(seed: int) -> BaseProcess:
        process = context.Process(target=write_for_ever, args=(cache, done, seed), daemon=True)
        process.start()
        return process

    running = [start(-1), start(-2)]
    while not done.exists() or done.stat().st_size < 1000:
        time.sleep(0.01)
    for kill in range(kills):
        time.sleep(rng.uniform(0.01, 0.1))
        for process in running:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)  # so that what is counted does not change
        running[0].kill()
        running.pop(0).join()
        assert size(cache.folder) <= cache.limit
        visible = [path for path in entries(cache.folder) if path.name != "partial"]
        found = {key: cache.get(str(key)) for key in range(1000)}
        assert all(data in (None, content(key)) for key, data in found.items())
        assert all(path.exists() for path in visible)  # none was damaged
        if held > 1000 * PARTS:
            assert all(found[int(key)] for key in done.read_text().split())
        assert running[0].pid is not None
        os.kill(running[0].pid, signal.SIGCONT)
        running.append(start(kill))
    for process in running:
        process.kill()
        process.join()
    for key in range(1000, 3000):
        cache.put(str(key), content(key))
    assert size(cache.folder) <= cache.limit
    assert not list(cache.folder.rglob("partial"))


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
    assert (pickle.loads(pickle.dumps(kept)).read(patches) == expected).all()
    assert len(entries(cache.folder)) == -(-len(patches) // BLOCK)
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
