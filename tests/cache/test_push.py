"""A pushed cache holds the same patches in random order, is sent once, and is never seen by halves."""

import json
import logging
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from local_bucket import FaultProxy

from e2e_abmilx.cache import CacheError, verify
from e2e_abmilx.cache.manifest import CachedSlide, read_manifest, update_manifest
from e2e_abmilx.cache.push import push
from e2e_abmilx.cache.sending import shuffled
from e2e_abmilx.main import main
from e2e_abmilx.store import CohortIndex, PatchStore, StoreError, StoreWriter, objects, scale_writer, write_store
from e2e_abmilx.store.files import forget_objects
from e2e_abmilx.store.format import ReachError
from e2e_abmilx.store.locations import ObjectUrl
from e2e_abmilx.store.object_errors import AccessError
from e2e_abmilx.store.summary import SUMMARY

TO = ObjectUrl("s3://cohorts/brca")
P = 16
COUNTS = (50, 12)


def patches(count: int, seed: int) -> np.ndarray:
    """Return patches of one colour each, so that JPEG streams are small and different."""
    colours = np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 3), np.uint8)
    return np.broadcast_to(colours, (count, P, P, 3)).copy()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stores; the first has shards of 20 patches, the last an empty scale."""
    folder = tmp_path_factory.mktemp("a cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale_writer, "PATCHES_PER_SHARD", 20)
        with StoreWriter(folder / "a [1].zarr", (0.5, math.nan), patch_size=P, attributes={"by": "us"}) as writer:
            for scale, count in enumerate(COUNTS):
                writer.write(patches(count, scale), np.arange(2 * count).reshape(count, 2), scale)
            writer.write_thumbnail(patches(1, 9)[0])
            writer.write_tissue(np.eye(4, dtype=bool))
    write_store(folder / "b.zarr", {0.5: (patches(5, 3), None)})
    write_store(folder / "c.zarr", {0.5: (patches(7, 4), None), 1.0: (patches(0, 5), None)})
    return folder


def download(bucket: FaultProxy, to: Path) -> Path:
    """Copy the whole bucket into a folder; return that of the cohort."""
    for page in objects.client(TO).list(None):
        for entry in page:
            path = to / "brca" / entry["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(objects.get(TO, entry["path"]) or b"")
    return to / "brca"


def same(pushed: PatchStore, source: PatchStore, seed: int = 0) -> bool:
    """Return whether a pushed store holds its source's patches in the order of the seed."""
    for scale in range(len(source.scales)):
        order = shuffled(seed, source.name, scale, source.num_patches(scale))
        if not (pushed.coords(scale) == source.coords(scale)[order]).all():
            return False
        if pushed.read_encoded(range(len(order)), scale) != source.read_encoded(order, scale):
            return False
    return list(pushed.verify()) == []


def test_a_pushed_store_holds_the_same_in_random_order(bucket: FaultProxy, cache: Path) -> None:
    assert push(cache, TO, seed=3) == []
    for name in ("a [1]", "b", "c"):
        pushed, source = PatchStore(TO / f"{name}.zarr"), PatchStore(cache / f"{name}.zarr")
        assert same(pushed, source, seed=3)
        assert pushed.order_seed == 3
        assert source.order_seed is None
    pushed = PatchStore(TO / "a [1].zarr")
    assert pushed.attributes["by"] == "us"
    assert pushed.thumbnail() is not None
    assert (pushed.tissue() == np.eye(4)).all()
    assert not np.array_equal(pushed.coords(), np.sort(pushed.coords(), axis=0))


def test_opening_is_one_request_and_reading_runs_fetches_nothing_else(bucket: FaultProxy, cache: Path) -> None:
    push(cache, TO)
    forget_objects()
    bucket.requests.clear()
    store = PatchStore(TO / "a [1].zarr")
    store.coords()
    lengths = store.stored_bytes()
    assert [request.path.rpartition("/")[2] for request in bucket.gets()] == [SUMMARY]
    store.read(range(3, 9))
    assert bucket.gets()[1:][0].sent == lengths[3:9].sum()
    assert len(bucket.gets()) == 2


def test_zarr_python_and_local_readers_read_a_copy(bucket: FaultProxy, cache: Path, tmp_path: Path) -> None:
    push(cache, TO)
    copy = download(bucket, tmp_path)
    for name in ("b", "c"):
        assert same(PatchStore(copy / f"{name}.zarr"), PatchStore(cache / f"{name}.zarr"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(copy / "c.zarr", mode="r")
        assert (group["0/patches"][:] == PatchStore(TO / "c.zarr").read(range(7))).all()
        assert dict(group.attrs)["patch_order_seed"] == 0


def test_the_index_lists_what_was_pushed(bucket: FaultProxy, cache: Path) -> None:
    push(cache, TO)
    forget_objects()
    bucket.requests.clear()
    index = CohortIndex(TO)
    assert index.slides() == ["a [1]", "b", "c"]
    for slide in index.slides():
        facts, store = index[slide], PatchStore(TO / f"{slide}.zarr")
        assert facts.checksum == store.checksum
        assert facts.counts == tuple(store.num_patches(scale) for scale in range(len(store.scales)))
        assert dict(facts.attributes) == dict(store.attributes)
    assert len(bucket.gets()) == 1 + 3


def test_nothing_is_sent_twice(bucket: FaultProxy, cache: Path) -> None:
    push(cache, TO)
    bucket.requests.clear()
    assert push(cache, TO) == []
    assert [request.path for request in bucket.requests if request.method != "GET"] == ["/cohorts/brca/stores.index"]


def test_another_cache_is_added_to_the_index(bucket: FaultProxy, cache: Path, tmp_path: Path) -> None:
    push(cache, TO)
    write_store(tmp_path / "d.zarr", {0.5: (patches(3, 8), None)})
    push(tmp_path, TO)
    assert CohortIndex(TO).slides() == ["a [1]", "b", "c", "d"]


def test_a_damaged_index_loses_nothing(bucket: FaultProxy, cache: Path, tmp_path: Path) -> None:
    push(cache, TO)
    names = CohortIndex(TO).slides()
    damaged = iter([True])
    bucket.fault = lambda method, path: "flip" if path.endswith("stores.index") and next(damaged, False) else None
    assert CohortIndex(TO).slides() == names
    write_store(tmp_path / "d.zarr", {0.5: (patches(3, 8), None)})
    for number in range(4):
        turn = iter([False] * number + [True])
        bucket.fault = lambda method, path: "flip" if method == "GET" and next(turn, False) else None  # noqa: B023
        push(tmp_path, TO)
        assert CohortIndex(TO).slides() == [*names, "d"]
    bucket.fault = lambda method, path: "flip" if path.endswith("stores.index") else None
    with pytest.raises(StoreError, match=r"stores\.index: .*delete it and push all caches again"):
        CohortIndex(TO)


def test_a_different_store_is_refused_and_kept(bucket: FaultProxy, cache: Path, tmp_path: Path) -> None:
    push(cache, TO)
    write_store(tmp_path / "b.zarr", {0.5: (patches(5, 77), None)})
    (problem,) = push(tmp_path, TO)
    assert problem.startswith("b: s3://cohorts/brca/b.zarr is another store than")
    assert "delete it there first" in problem
    assert len(push(cache, TO, seed=1)) == 3
    assert same(PatchStore(TO / "b.zarr"), PatchStore(cache / "b.zarr"))


def test_a_damaged_store_is_not_sent_and_the_others_are(
    bucket: FaultProxy, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    harmed = Path(shutil.copytree(cache, tmp_path / "harmed"))
    shard = harmed / "b.zarr/0/patches/c.0.0.0.0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        (problem,) = push(harmed, TO)
    assert "b.zarr is not sent" in problem
    assert "scale 0, patch 0 is damaged" in problem
    assert problem.removeprefix("b: ") in caplog.text
    assert CohortIndex(TO).slides() == ["a [1]", "c"]
    with pytest.raises(StoreError, match="no patch store"):
        PatchStore(TO / "b.zarr")


def test_folders_and_empty_caches_are_refused(bucket: FaultProxy, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="is a folder; push copies into object storage"):
        push(cache, str(tmp_path))
    with pytest.raises(CacheError, match="holds no patch store"):
        push(tmp_path, TO)
    bucket.fault = lambda method, path: "expired"
    with pytest.raises(AccessError, match="renew them"):
        push(cache, TO)


def sound(cache: Path) -> Iterator[str]:
    """Yield the slides of the bucket that can be opened; each must be whole."""
    forget_objects()
    for name in ("a [1]", "b", "c"):
        try:
            pushed = PatchStore(TO / f"{name}.zarr")
        except StoreError as error:
            assert "no patch store" in str(error)  # noqa: PT017 - either it is whole or it is not there
            continue
        assert same(pushed, PatchStore(cache / f"{name}.zarr"))
        yield name


def test_a_push_that_ends_at_any_request_leaves_whole_stores_and_is_continued(bucket: FaultProxy, cache: Path) -> None:
    """The server refuses all writes from the k-th on, for every second k."""
    seen: list[int] = []
    for last in range(0, 1000, 2):
        writes = iter(range(10_000))
        bucket.fault = lambda method, path: (
            "denied" if method not in ("GET", "HEAD") and next(writes) >= last else None  # noqa: B023
        )
        try:
            assert push(cache, TO, workers=1) == []
        except StoreError:
            bucket.fault = lambda method, path: None
            seen.append(len(list(sound(cache))))
            continue
        break
    bucket.fault = lambda method, path: None
    assert seen == sorted(seen)
    assert len(seen) > 5
    assert list(sound(cache)) == CohortIndex(TO).slides() == ["a [1]", "b", "c"]


@pytest.mark.slow
def test_twenty_kills(bucket: FaultProxy, cache: Path) -> None:
    """Killed at random moments, a push loses nothing and shows nothing half."""
    code = "import sys; from e2e_abmilx.cache.push import push; print('ready', flush=True); push(*sys.argv[1:])"
    bucket.latency_s, rng = 0.02, random.Random(0)
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", code, cache, TO], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 1.0))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        list(sound(cache))
    assert push(cache, TO) == []
    assert list(sound(cache)) == CohortIndex(TO).slides() == ["a [1]", "b", "c"]


def test_the_command(bucket: FaultProxy, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["push", str(cache), TO, "--seed", "5"])
    assert PatchStore(TO / "b.zarr").order_seed == 5
    with pytest.raises(SystemExit) as caught:
        main(["push", str(cache), TO])
    assert "3 slides or cases failed" in str(caught.value)
    assert json.loads(PatchStore(TO / "b.zarr")._files.read("zarr.json"))["attributes"]["patch_order_seed"] == 5


def test_the_rows_of_the_manifest_are_copied(bucket: FaultProxy, cache: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(cache, tmp_path / "copy"))
    rows = [CachedSlide(name, "done", seconds=2.5) for name in ("a [1]", "b", "c")]
    update_manifest(copy, [*rows, CachedSlide("d", "failed", "why")])
    push(copy, TO)
    assert list(read_manifest(TO).values()) == [*rows, CachedSlide("d", "failed", "why")]
    write_store(tmp_path / "other/e.zarr", {0.5: (patches(3, 8), None)})
    update_manifest(tmp_path / "other", [CachedSlide("b", "failed", "there"), CachedSlide("e", "done")])
    push(tmp_path / "other", TO)  # that b failed in another cache does not concern the one that is there
    assert read_manifest(TO)["b"] == rows[1]
    assert read_manifest(TO)["e"].status == "done"


def test_a_bucket_is_verified_like_a_folder(cache: Path, bucket: FaultProxy) -> None:
    with pytest.raises(CacheError, match="s3://cohorts/brca holds no patch store; check the path"):
        verify(TO)
    assert push(cache, TO) == []
    assert verify(Path(TO)) == []
    objects.put(TO, "b.zarr/0/patches/c.0.0.0.0", b"")
    bucket.objects.clear()
    forget_objects()
    problems = verify(TO)
    assert problems
    assert all("b.zarr, scale 0" in problem for problem in problems)
    assert "delete this store in the bucket and push it again" in problems[0]


def test_a_bucket_that_does_not_answer_is_not_damaged(cache: Path, bucket: FaultProxy) -> None:
    assert push(cache, TO) == []
    forget_objects()
    bucket.fault = lambda method, path: "expired" if "/patches/c." in path else None
    with pytest.raises(AccessError, match=r"scale 0, patches 0 to 19 cannot be read: .*credentials") as caught:
        verify(TO)
    assert "delete this store" not in str(caught.value)
    assert "rebuild" not in str(caught.value)
    bucket.fault = lambda method, path: "503" if "/patches/c." in path else None
    with pytest.raises(ReachError, match=r"patches 0 to 19 cannot be read: .*503"):
        verify(TO)


def test_what_push_cannot_do_is_refused(cache: Path, bucket: FaultProxy) -> None:
    assert push(cache, TO) == []
    with pytest.raises(CacheError, match="s3://cohorts/brca is in a bucket already; push copies a folder"):
        push(Path(TO), "s3://cohorts/other")
    with pytest.raises(CacheError, match=r"workers is 0; .* must be at least 1"):
        push(cache, TO, workers=0)
