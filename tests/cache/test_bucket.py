"""Slides are cached straight into a bucket as by ``cache`` and ``push``; nothing half is visible, and nothing finished is lost."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from local_bucket import BUCKET, FaultProxy, download, make_bucket

from e2e_abmilx.cache import CacheError, cache_slides
from e2e_abmilx.cache import bucket as cache_bucket
from e2e_abmilx.cache.caching import make_stores
from e2e_abmilx.cache.imports import import_images
from e2e_abmilx.cache.jobs import StoreJob
from e2e_abmilx.cache.manifest import CachedSlide, read_manifest
from e2e_abmilx.cache.push import push
from e2e_abmilx.main import main
from e2e_abmilx.slides.slide_files import SlideFile
from e2e_abmilx.store import CohortIndex, PatchStore, StoreError, StoreWriter, objects
from e2e_abmilx.store.files import forget_objects
from e2e_abmilx.store.locations import ObjectUrl
from e2e_abmilx.store.object_errors import AccessError

TO = ObjectUrl("s3://cohorts/lesions")
NAMES = [f"slide-00{number}" for number in range(3)]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which this and child processes make temporary folders."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def three(cohort: Path, tmp_path: Path) -> Path:
    """A folder of three linked slides."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.tiff").hardlink_to(cohort / f"slides/{name}.tiff")
    return folder


def build(slides: Path | list[Path], to: str | Path = TO, **how: object) -> list[CachedSlide]:
    return cache_slides(slides, to, **{"patch_size": 64, "workers": 1, **how})  # type: ignore[arg-type]


def writes(bucket: FaultProxy, part: str = "") -> list[str]:
    """Return the objects that were written, of each the last two parts of its path."""
    return [
        request.path.partition("?")[0]
        for request in bucket.requests
        if request.method != "GET" and part in request.path and request.method != "HEAD"
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_seconds(rows: dict[str, CachedSlide]) -> dict[str, CachedSlide]:
    return {slide: row._replace(seconds=0.0) for slide, row in rows.items()}


@pytest.fixture(scope="module")
def locally(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local cache of the three slides."""
    folder = tmp_path_factory.mktemp("locally")
    cache_slides([cohort / f"slides/{name}.tiff" for name in NAMES], folder, patch_size=64, workers=1)
    return folder


def whole(locally: Path) -> Iterator[str]:
    """Yield the slides whose store can be opened in the bucket; each must be whole and right."""
    forget_objects()
    for name in NAMES:
        try:
            pushed = PatchStore(TO / f"{name}.zarr")
        except StoreError as error:
            assert "no patch store" in str(error)  # noqa: PT017 - either it is whole or it is not there
            continue
        source = PatchStore(locally / f"{name}.zarr")
        for scale in range(2):
            order = sorted(range(pushed.num_patches(scale)), key=lambda i: tuple(pushed.coords(scale)[i][::-1]))
            local = sorted(range(source.num_patches(scale)), key=lambda i: tuple(source.coords(scale)[i][::-1]))
            assert pushed.read_encoded(order, scale) == source.read_encoded(local, scale)
        assert list(pushed.verify()) == []
        yield name


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bucket_is_that_of_cache_and_push(
    bucket: FaultProxy, cohort: Path, three: Path, disk: Path, tmp_path: Path, workers: int
) -> None:
    (three / "bad.svs").write_text("not a slide")
    rows = build(three, TO, workers=workers)
    assert list(disk.iterdir()) == []
    build(three, tmp_path / "local")
    assert push(tmp_path / "local", TO.parent / "pushed") == []
    found = contents(download(TO.parent, tmp_path / "copy"))
    direct, pushed = ({k.partition("/")[2]: v for k, v in found.items() if k.startswith(top)} for top in ("le", "pu"))
    assert direct.keys() == pushed.keys()
    assert [name for name in direct if direct[name] != pushed[name]] in ([], ["manifest.csv"])  # it holds seconds
    table = read_manifest(TO)
    assert without_seconds(table) == without_seconds(read_manifest(TO.parent / "pushed"))
    assert [row.status for row in rows] == ["failed", "done", "done", "done"]
    assert {row.slide: row for row in rows} == table
    assert "cannot be opened" in table["bad"].reason
    assert CohortIndex(TO).slides() == NAMES


def test_a_second_run_makes_only_what_is_missing(bucket: FaultProxy, three: Path, disk: Path) -> None:
    first = build([three / "slide-000.tiff"])
    bucket.requests.clear()
    rows = build(three)
    assert not [path for path in writes(bucket) if "slide-000" in path]
    assert rows[0] == first[0]
    assert CohortIndex(TO).slides() == NAMES
    bucket.requests.clear()
    assert build(three) == rows
    assert set(writes(bucket)) == {"/cohorts/lesions/stores.index", "/cohorts/lesions/manifest.csv"}


def test_a_deleted_store_is_made_again(bucket: FaultProxy, three: Path, disk: Path, locally: Path) -> None:
    build([three / f"{name}.tiff" for name in NAMES[:2]])
    objects._obstore(TO).delete(
        objects.client(TO), "slide-001.zarr/zarr.json"
    )  # half deleted, though the index lists it
    bucket.objects.clear()
    build(three)
    assert list(whole(locally)) == NAMES


def test_other_settings_and_other_slides_are_refused_before_anything_is_made(
    bucket: FaultProxy, three: Path, disk: Path
) -> None:
    build([three / "slide-000.tiff"])
    bucket.requests.clear()
    with pytest.raises(
        CacheError, match=r"s3://cohorts/lesions/slide-000\.zarr was made .*patch_size was 64 and is now 32"
    ):
        build(three, patch_size=32)
    with pytest.raises(CacheError, match="patch_size was 64 and is now 32"):
        build(three, patch_size=32, dry_run=True)
    (three / "slide-000.tiff").unlink()
    shutil.copy(three / "slide-001.tiff", three / "slide-000.tiff")
    with pytest.raises(CacheError, match=r"fingerprint was \w+ and is now"):
        build(three)
    assert writes(bucket) == []


def test_a_dry_run_writes_nothing(bucket: FaultProxy, three: Path, disk: Path) -> None:
    assert [row.status for row in build(three, dry_run=True)] == ["planned"] * 3
    assert writes(bucket) == []


def test_addresses_and_buckets_that_cannot_be_written_are_refused_at_once(
    bucket: FaultProxy, three: Path, disk: Path
) -> None:
    with pytest.raises(StoreError, match=r"https://host/cohort can only be read; .*s3://, gs:// or az://"):
        build(three, "https://host/cohort")
    with pytest.raises(StoreError, match="can only be read"):
        import_images(three.parent, Path("http://host/cohort"))
    bucket.fault = lambda method, path: "denied" if method == "PUT" else None
    with pytest.raises(AccessError, match=r"manifest\.csv cannot be written: credentials"):
        build(three)
    assert not [request for request in bucket.requests if ".zarr" in request.path]


def test_imports_go_to_a_bucket_too(bucket: FaultProxy, disk: Path, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "images/s1").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (16, 16), (number * 50, 9, 9)).save(tmp_path / f"images/s1/p{number}.png")
    main(["import_images", "--folder", str(tmp_path / "images"), "--out", str(TO)])
    assert PatchStore(TO / "s1.zarr").num_patches() == 3
    assert not Path("s3:").exists()


def test_the_command(bucket: FaultProxy, three: Path, disk: Path) -> None:
    (three / "bad.svs").write_text("not a slide")
    for name in NAMES[1:]:
        (three / f"{name}.tiff").unlink()
    with pytest.raises(SystemExit, match="1 of 2 slides failed"):
        main(["cache", "--slides", str(three), "--out", str(TO), "--patch_size", "64", "--workers", "1"])
    assert CohortIndex(TO).slides() == NAMES[:1]
    assert not Path("s3:").exists()


def test_one_worker_keeps_one_store_and_index_and_manifest_are_not_written_for_each_slide(
    bucket: FaultProxy, three: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    send = cache_bucket.push_store

    def watched(cache: Path, *how: object) -> object:
        seen.append(len(list(disk.glob("*/*/*.zarr"))))
        return send(cache, *how)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_bucket, "push_store", watched)
    build(three)
    assert seen == [1, 1, 1]
    assert len(writes(bucket, "stores.index")) == 2  # after the first slide and at the end
    assert len(writes(bucket, "manifest.csv")) == 3  # and once before anything is made
    assert writes(bucket)[-2:] == ["/cohorts/lesions/stores.index", "/cohorts/lesions/manifest.csv"]


@pytest.mark.parametrize("last", [5, 30])
def test_a_run_whose_credentials_expire_keeps_what_is_finished(
    bucket: FaultProxy, three: Path, disk: Path, locally: Path, last: int
) -> None:
    """The server refuses all writes from the given one on; index and manifest of the last slides are then missing."""
    count = iter(range(10_000))
    bucket.fault = lambda method, path: "expired" if method in ("PUT", "POST") and next(count) >= last else None
    with pytest.raises(AccessError, match="renew them"):
        build(three)
    assert list(disk.iterdir()) == []
    bucket.fault = lambda method, path: None
    finished = list(whole(locally))
    forget_objects()
    bucket.requests.clear()
    rows = build(three)
    made = {path.split("/")[3] for path in writes(bucket, ".zarr")}
    there = {f"{name}.zarr" for name in finished if name not in made}
    assert made.isdisjoint(there)
    assert [row.status for row in rows] == ["done"] * 3
    assert list(whole(locally)) == CohortIndex(TO).slides() == sorted(read_manifest(TO)) == NAMES


def test_the_row_of_a_finished_store_that_no_manifest_has(bucket: FaultProxy, three: Path, disk: Path) -> None:
    (before,) = build([three / "slide-000.tiff"])
    for name in ("manifest.csv", "stores.index"):
        objects._obstore(TO).delete(objects.client(TO), name)
    bucket.objects.clear()
    (row,) = build([three / "slide-000.tiff"])
    assert row.checked_by == "not known: the run that checked it was stopped"
    assert row._replace(checked_by="", bytes=0) == CachedSlide(
        before.slide, "done", mpp=before.mpp, mpp_source=before.mpp_source, patches=before.patches, path=before.path
    )
    assert abs(row.bytes - before.bytes) < 2000  # a bucket has the summary, too
    assert CohortIndex(TO).slides() == ["slide-000"]


def test_faults_of_the_network_fail_no_slide(bucket: FaultProxy, three: Path, disk: Path, locally: Path) -> None:
    numbers, faults = iter(range(10**6)), ("503", "cut", "short", "flip", "429", "500")
    bucket.fault = lambda method, path: faults[number // 3 % 6] if (number := next(numbers)) % 3 == 0 else None
    rows = build(three)
    again = build(three)
    bucket.fault = lambda method, path: None
    assert [row.status for row in rows] == ["done"] * 3
    assert again == rows
    assert list(whole(locally)) == CohortIndex(TO).slides() == sorted(read_manifest(TO)) == NAMES


def test_a_slide_that_cannot_be_sent_fails_and_the_others_go_on(
    bucket: FaultProxy, three: Path, disk: Path, locally: Path
) -> None:
    bucket.fault = lambda method, path: "500" if method != "GET" and "slide-001" in path else None
    rows = build(three)
    assert [row.status for row in rows] == ["done", "failed", "done"]
    assert "slide-001.tiff: s3://cohorts/lesions/slide-001.zarr" in rows[1].reason
    assert read_manifest(TO)["slide-001"] == rows[1]
    assert CohortIndex(TO).slides() == ["slide-000", "slide-002"]
    bucket.fault = lambda method, path: None
    assert [row.status for row in build(three)] == ["done"] * 3
    assert list(whole(locally)) == NAMES


BUILDING = """
import sys
from pathlib import Path
from e2e_abmilx.cache import cache_slides

if __name__ == "__main__":
    out, workers, *slides = sys.argv[1:]
    print("ready", flush=True)
    cache_slides([Path(slide) for slide in slides], out, patch_size=64, workers=int(workers))
"""


def start(folder: Path, slides: list[Path], workers: int = 1) -> subprocess.Popen[str]:
    """Start a process that has imported everything, in a session of its own."""
    script = folder / "building.py"
    script.write_text(BUILDING)
    words = [sys.executable, str(script), TO, str(workers), *map(str, slides)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.01)


def test_a_killed_run_is_continued_and_its_temporary_files_go(
    bucket: FaultProxy, three: Path, disk: Path, tmp_path: Path, locally: Path
) -> None:
    """Killed while it sends the second slide."""
    bucket.latency_s = 0.03
    process = start(tmp_path, sorted(three.iterdir()))
    wait_for(lambda: len(writes(bucket, "slide-001.zarr")) >= 3)
    kill(process)
    bucket.latency_s = 0.0
    assert len(list(disk.iterdir())) == 1
    assert list(whole(locally)) == CohortIndex(TO).slides() == ["slide-000"]
    bucket.requests.clear()
    build(three)
    assert not writes(bucket, "slide-000.zarr")
    assert list(disk.iterdir()) == []
    assert list(whole(locally)) == CohortIndex(TO).slides() == sorted(read_manifest(TO)) == NAMES


@pytest.mark.slow  # half a minute
def test_twenty_kills(bucket: FaultProxy, three: Path, disk: Path, tmp_path: Path, locally: Path) -> None:
    bucket.latency_s, rng = 0.02, random.Random(0)
    seen: list[int] = []
    for number in range(20):
        process = start(tmp_path, sorted(three.iterdir()), workers=1 + number % 2)
        time.sleep(rng.uniform(0, 2.5))
        kill(process)
        seen.append(len(list(whole(locally))))
        if seen[-1] == 3:  # begin again, so that there is always some work left
            make_bucket(bucket, BUCKET)
    bucket.latency_s = 0.0
    print(f"whole stores after each kill: {seen}")
    assert [row.status for row in build(three)] == ["done"] * 3
    assert list(whole(locally)) == CohortIndex(TO).slides() == sorted(read_manifest(TO)) == NAMES
    assert list(disk.iterdir()) == []


def test_two_machines_add_to_one_cohort(bucket: FaultProxy, cohort: Path, disk: Path, tmp_path: Path) -> None:
    """Each has its share, and one slide is in both."""
    files = sorted((cohort / "slides").glob("*.tiff"))[:5]
    shares = (files[:3], files[2:])
    processes = []
    for number, share in enumerate(shares):
        (tmp_path / str(number)).mkdir()
        processes.append(start(tmp_path / str(number), share))
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0, 0]
    names = [file.stem for file in files]
    assert CohortIndex(TO).slides() == sorted(read_manifest(TO)) == names
    assert {row.status for row in read_manifest(TO).values()} == {"done"}
    for name in names:
        assert list(PatchStore(TO / f"{name}.zarr").verify()) == []


def test_writers_at_once_lose_no_row_of_each_other(bucket: FaultProxy, three: Path, disk: Path) -> None:
    bucket.latency_s = 0.005
    jobs = [
        threading.Thread(target=cache_bucket._save, args=(TO, [CachedSlide(f"{name}-{number}", "failed", "why")]))
        for name in "abc"
        for number in range(4)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(read_manifest(TO)) == 12


@dataclass(frozen=True)
class FragileJob(StoreJob):
    """A slide that kills its process if its name says so."""

    def origin(self) -> dict[str, object]:
        return {}

    def write(self) -> None:
        if self.slide.name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        facts = {"slide_mpp": 0.5, "slide_mpp_source": "assumed", "grid_patches": [1]}
        with StoreWriter(self.store, [0.5], patch_size=8, attributes=facts) as writer:
            writer.write(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 2), int))


@pytest.mark.slow  # it starts processes again and again
def test_a_slide_that_kills_its_process_fails_and_the_others_go_on(
    bucket: FaultProxy, disk: Path, tmp_path: Path
) -> None:
    jobs = [FragileJob(SlideFile(tmp_path / f"{name}.svs"), Path(TO)) for name in ("a", "deadly", "b", "c")]
    rows = make_stores(jobs, TO, 2)
    assert {row.slide: row.status for row in rows} == {"a": "done", "b": "done", "c": "done", "deadly": "failed"}
    assert "the process that read it died" in read_manifest(TO)["deadly"].reason
    assert CohortIndex(TO).slides() == ["a", "b", "c"]
    assert list(disk.iterdir()) == []


@pytest.mark.slow  # it starts a Dask cluster
def test_dask_workers_send_their_stores_themselves(
    bucket: FaultProxy, three: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locally: Path
) -> None:
    pytest.importorskip("distributed", reason="the dask extra is not installed")
    from distributed import Client

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    scheduler = subprocess.Popen([*run, "--no-dashboard"])
    address = f"tcp://127.0.0.1:{port}"
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
    others = [tmp_path / f"machine-{number}" for number in range(2)]
    workers = []
    for folder in others:  # each has its own disk
        folder.mkdir()
        workers.append(subprocess.Popen([*command, "--no-dashboard"], env={**os.environ, "TMPDIR": str(folder)}))
    (three / "bad.svs").write_text("not a slide")
    try:
        with Client(address, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
        rows = build(three, scheduler=address)
        left = [path for folder in others for path in folder.rglob("e2e-abmilx-*")]
        bucket.fault = lambda method, path: "expired" if method in ("PUT", "POST") and "003" in path else None
        shutil.copy(three.parent / "slides/slide-000.tiff", three / "slide-003.tiff")
        with pytest.raises(AccessError, match="renew them"):
            build(three, scheduler=address)
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
    assert [row.status for row in rows] == ["failed", "done", "done", "done"]
    assert left == []
    bucket.fault = lambda method, path: None
    assert list(whole(locally)) == CohortIndex(TO).slides() == NAMES
    assert sorted(read_manifest(TO)) == ["bad", *NAMES]
