"""Requests to object storage: faults are repeated or named, credentials are never shown, a fork is refused."""

import os
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
from local_bucket import FaultProxy

from e2e_abmilx.store import StoreError, objects
from e2e_abmilx.store.locations import ObjectUrl
from e2e_abmilx.store.object_errors import AccessError
from e2e_abmilx.store.objects import Range, fetch

FOLDER = ObjectUrl("s3://cohorts/x")
DATA = os.urandom(3000)


@pytest.fixture
def filled(bucket: FaultProxy) -> FaultProxy:
    """The bucket with one object."""
    objects.put(FOLDER, "data", DATA)
    bucket.requests.clear()
    return bucket


def first(fault: str, times: int = 1):
    """Return a source of faults: the first requests fail, the others do not."""
    numbers = count()
    return lambda method, path: fault if next(numbers) < times else None


def test_ranges_are_asked_for_together(filled: FaultProxy) -> None:
    filled.latency_s = 0.2
    wanted = [Range("data", start, start + 100) for start in range(0, 1600, 200)]
    objects.get(FOLDER, "data")  # so that the connection and the threads are there
    start = time.perf_counter()
    found = fetch(FOLDER, wanted)
    assert time.perf_counter() - start < 0.8  # eight one after another take 1.6 s
    assert [bytes(data) for data in found] == [DATA[one.start : one.stop] for one in wanted]


def test_whole_objects_and_their_ends(filled: FaultProxy) -> None:
    assert objects.get(FOLDER, "data") == DATA
    assert objects.get(FOLDER, "nothing") is None
    assert objects.get_tail(FOLDER, "data", 10) == (DATA[-10:], len(DATA))
    with pytest.raises(StoreError, match="s3://cohorts/x/nothing is missing"):
        objects.get_tail(FOLDER, "nothing", 10)
    assert objects.list_folders(FOLDER.parent) == ["x"]
    assert objects.list_folders(FOLDER) == []


@pytest.mark.parametrize("fault", ["429", "500", "503", "cut", "short", "stall"])
def test_a_fault_that_passes_is_not_noticed(filled: FaultProxy, fault: str) -> None:
    filled.fault, filled.stall_s = first(fault), 2.0
    assert bytes(fetch(FOLDER, [Range("data", 5, 2005)])[0]) == DATA[5:2005]
    assert len(filled.gets()) == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("429", "429 Too Many Requests"),
        ("500", "500 Internal Server Error"),
        ("503", "503 Service Unavailable"),
        ("cut", "the connection was cut"),
        ("short", "the server sends only 1000 of 2000 bytes"),
        ("stall", "it timed out"),
    ],
)
def test_a_fault_that_stays_is_named(filled: FaultProxy, fault: str, reason: str) -> None:
    filled.fault, filled.stall_s = first(fault, 100), 1.0
    start = time.perf_counter()
    with pytest.raises(StoreError, match=f"s3://cohorts/x/data cannot be read.*{reason}"):
        fetch(FOLDER, [Range("data", 0, 2000)])
    assert time.perf_counter() - start < 10
    assert len(filled.gets()) > 2


@pytest.mark.parametrize("fault", ["expired", "denied"])
def test_credentials_that_do_not_do_are_named_at_once(filled: FaultProxy, fault: str) -> None:
    filled.fault = first(fault, 100)
    with pytest.raises(
        AccessError, match=r"credentials are missing, expired .* \(40. \w+.*AWS_ACCESS_KEY_ID"
    ) as caught:
        objects.get(FOLDER, "data")
    assert len(filled.requests) == 1
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    with pytest.raises(AccessError, match="cannot be written"):
        objects.put(FOLDER, "data", b"")


def test_missing_credentials_are_named(filled: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # where a machine in the cloud asks for some
    objects._open_client.cache_clear()
    start = time.perf_counter()
    with pytest.raises(AccessError, match="credentials are missing"):
        objects.get(FOLDER, "data")
    assert time.perf_counter() - start < 5


def test_an_unreachable_server_is_named(filled: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    objects._open_client.cache_clear()
    with pytest.raises(StoreError, match=r"nothing answers.*AWS_ENDPOINT_URL"):
        objects.get(FOLDER, "data")


def test_without_obstore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    for ask in (objects.get, lambda folder, name: objects.put(folder, name, b"")):
        with pytest.raises(StoreError, match=r"s3://cohorts/x .*pip install e2e-abmilx\[cloud\]"):
            ask(FOLDER, "data")


def test_of_two_updates_at_once_none_is_lost(filled: FaultProxy) -> None:
    def add(letter: bytes, *others: bytes):
        def change(data: bytes | None) -> bytes:
            if others:  # somebody else updates between our reading and writing
                objects.update(FOLDER, "letters", add(others[0], *others[1:]))
                others_left.clear()
            return (data or b"") + letter

        others_left = list(others)
        return lambda data: change(data) if others_left else (data or b"") + letter

    objects.update(FOLDER, "letters", add(b"a", b"b"))
    objects.update(FOLDER, "letters", add(b"c", b"d"))
    assert objects.get(FOLDER, "letters") == b"badc"


FORKED = """
import multiprocessing, sys
from e2e_abmilx.store import StoreError, objects
from e2e_abmilx.store.locations import ObjectUrl

def read(queue):
    try:
        queue.put(len(objects.get(ObjectUrl("s3://cohorts/x"), "data")))
    except StoreError as error:
        queue.put(str(error))

def ask(method):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=read, args=(queue,))
    process.start()
    print(queue.get(timeout=60))
    process.join()

if __name__ == "__main__":
    ask("fork")  # this process has read nothing yet
    objects.get(ObjectUrl("s3://cohorts/x"), "data")
    ask("fork")
    ask("spawn")
"""


def test_child_processes_read_or_refuse_and_never_hang(filled: FaultProxy, tmp_path: Path) -> None:
    (tmp_path / "forked.py").write_text(FORKED)
    done = subprocess.run(
        [sys.executable, tmp_path / "forked.py"], capture_output=True, text=True, timeout=120, check=True
    )
    before, refused, spawned = done.stdout.splitlines()
    assert (before, spawned) == ("3000", "3000")
    assert "forked from one that had read from object storage" in refused


def test_the_size_of_a_folder_is_that_of_all_its_objects(filled: FaultProxy) -> None:
    for name, length in {"a.zarr/x": 5, "a.zarr/y/z": 7, "a.zarr2/x": 100}.items():
        objects.put(ObjectUrl("s3://cohorts/x"), name, bytes(length))
    assert objects.num_bytes(ObjectUrl("s3://cohorts/x"), "a.zarr") == 12
    assert objects.num_bytes(ObjectUrl("s3://cohorts/x"), "b.zarr") == 0
